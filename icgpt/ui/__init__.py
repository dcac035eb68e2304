"""A page to let models write in, made with Gradio (the extra `ui`).

What writes is in `writers`, `local` and `canister`; `page` is the page, `look` its looks, `serving`
puts it on an address. Only `page` and `serving` need Gradio.
"""
