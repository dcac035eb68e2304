//! Who may do what: controller > manager > user > anyone (anyone counts as a user in public mode).

use candid::Principal;
use ic_cdk::api::{is_controller, msg_caller};

use crate::error::Error;
use crate::http;
use crate::reply;
use crate::storage;
use crate::types::Access;

/// Methods that need a manager. Their ingress is turned away before it costs the canister cycles.
const MANAGER_METHODS: [&str; 27] = [
    "begin",
    "write",
    "commit",
    "discard",
    "add_authorized_principal",
    "append_config_bytes",
    "append_safetensors_bytes",
    "append_tokenizer_bytes",
    "clear_config_bytes",
    "clear_safetensors_bytes",
    "clear_tokenizer_bytes",
    "store_safetensors_bytes_to_stable",
    "store_tokenizer_bytes_to_stable",
    "load_safetensors_bytes_from_stable",
    "load_tokenizer_bytes_from_stable",
    "setup_tokenizer",
    "setup_model",
    "add_manager",
    "remove_manager",
    "add_user",
    "remove_user",
    "set_public_mode",
    "set_per_message",
    "set_name",
    "set_precision",
    "set_heap_for_weights",
    "set_quotas",
];

/// Methods that the canister alone may call.
const OWN_METHODS: [&str; 2] = ["continue_work", "run_jobs"];

/// Methods that need a user.
const USER_METHODS: [&str; 7] = [
    "inference",
    "generate",
    "complete",
    "submit",
    "cancel",
    "logits",
    "score",
];

/// By what right a caller generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A manager or controller.
    Manager,
    /// On the list of users.
    User,
    /// Only because public mode lets everyone in.
    Public,
}

/// By what right a caller generates, if it may.
pub fn role(caller: &Principal) -> Role {
    if is_manager(caller) {
        Role::Manager
    } else if storage::with(|storage| storage.users.contains(caller)) {
        Role::User
    } else {
        Role::Public
    }
}

/// Whether a caller may change the model, the lists, and end anybody's jobs.
pub fn is_manager(caller: &Principal) -> bool {
    storage::with(|storage| storage.managers.contains(caller)) || is_controller(caller)
}

/// Whether anyone may use the model.
pub fn is_public() -> bool {
    storage::with(|storage| storage.meta().public)
}

fn is_user(caller: &Principal) -> bool {
    is_public() || storage::with(|storage| storage.users.contains(caller)) || is_manager(caller)
}

/// Guard of methods that change the model or the lists.
///
/// # Errors
/// A text that says who the caller is and who could let it in.
pub fn manager() -> Result<(), String> {
    let caller = msg_caller();
    if is_manager(&caller) {
        return Ok(());
    }
    Err(format!(
        "{caller} is not a manager of this canister: a controller or manager can add it with add_manager"
    ))
}

/// Guard of methods that run the model.
///
/// # Errors
/// A text that says who the caller is and who could let it in.
pub fn user() -> Result<(), String> {
    let caller = msg_caller();
    if is_user(&caller) {
        return Ok(());
    }
    Err(format!(
        "{caller} may not use this model: a manager can add it with add_user, or switch public mode on"
    ))
}

/// Turns ingress away that its method's guard would refuse anyway.
#[ic_cdk::inspect_message]
fn inspect_message() {
    let method = ic_cdk::api::msg_method_name();
    let verdict = if MANAGER_METHODS.contains(&method.as_str()) {
        manager()
    } else if USER_METHODS.contains(&method.as_str()) {
        user()
    } else if OWN_METHODS.contains(&method.as_str()) {
        Err("only the canister itself may call this method".into())
    } else {
        Ok(())
    };
    match verdict {
        Ok(()) => ic_cdk::api::accept_message(),
        Err(text) => ic_cdk::trap(text),
    }
}

/// The installer becomes the first manager.
pub fn install(installer: Principal) {
    storage::with(|storage| storage.managers.insert(installer));
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn add_authorized_principal(principal: Principal) {
    reply::nothing(insert_manager(principal));
}

#[ic_cdk::query]
fn is_principal_authorized(principal: Principal) -> bool {
    is_manager(&principal)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn add_manager(principal: Principal) {
    reply::nothing(insert_manager(principal));
}

/// Adds a manager, but never the anonymous principal: that would be everyone.
fn insert_manager(principal: Principal) -> Result<(), Error> {
    if principal == Principal::anonymous() {
        return Err(Error::AnonymousManager);
    }
    storage::with(|storage| storage.managers.insert(principal));
    Ok(())
}

#[ic_cdk::update(guard = "manager")]
fn remove_manager(principal: Principal) {
    storage::with(|storage| storage.managers.remove(&principal));
}

#[ic_cdk::update(guard = "manager")]
fn add_user(principal: Principal) {
    storage::with(|storage| storage.users.insert(principal));
}

#[ic_cdk::update(guard = "manager")]
fn remove_user(principal: Principal) {
    storage::with(|storage| storage.users.remove(&principal));
}

#[ic_cdk::update(guard = "manager")]
fn set_public_mode(public: bool) {
    storage::with(|storage| storage.update(|meta| meta.public = public));
    http::renew();
}

#[ic_cdk::query]
fn access() -> Access {
    storage::with(|storage| Access {
        managers: storage.managers.iter().collect(),
        users: storage.users.iter().collect(),
        public: storage.meta().public,
    })
}
