//! The changes that administrators make of images, carried out on the tree of names.

use trivet_api::{AdminAnswer, AdminCall, AdminError, CallId, ErrorKind};
use trivet_core::{ImageId, PoolId};
use trivet_namespace::{Caller, Kind, Namespace, NsError, Operation, Outcome};

use crate::changes::Change;
use crate::cluster::{NO_POOL, runs_elsewhere};
use crate::gateway::{Effect, Gateway, Origin};

impl Gateway {
    /// Starts the change that was asked for.
    pub(crate) fn admin_call(&mut self, id: CallId, call: AdminCall, out: &mut Vec<Effect>) {
        let wanted = match &call {
            AdminCall::ImageCreate { .. }
            | AdminCall::ImageRemove { .. }
            | AdminCall::ImageRename { .. }
            | AdminCall::ImageResize { .. } => self.image_operation(&call),
            AdminCall::OsdStop { osd } | AdminCall::OsdStart { osd } => Err(runs_elsewhere(self.client.map(), *osd)),
            _ => Err(AdminError::new(ErrorKind::Internal, "this is not a change")),
        };
        match wanted {
            Ok((operation, pool)) => {
                let number = self.number();
                self.calls.insert(number, (call, id));
                let change = Change {
                    origin: Origin::Admin(number),
                    operation,
                    caller: Caller::root(),
                    pool,
                    call: None,
                    written: None,
                };
                self.start(change, out);
            }
            Err(error) => self.answer_call(id, Err(error)),
        }
    }

    /// What a call asks of the tree of names, and the pool for what is made.
    fn image_operation(&self, call: &AdminCall) -> Result<(Operation, Option<PoolId>), AdminError> {
        let operation = match call {
            AdminCall::ImageCreate { path, size, pool } => {
                let pool = pool.as_deref().map(|pool| self.pool_for_images(pool)).transpose()?;
                let operation = Operation::CreateImage {
                    path: path.clone().into_bytes(),
                    size: *size,
                };
                return Ok((operation, pool));
            }
            AdminCall::ImageRemove { path } => find_image(&self.namespace, path).map(|_| Operation::RemoveImage {
                path: path.clone().into_bytes(),
            }),
            AdminCall::ImageRename { from, to } => find_image(&self.namespace, from).map(|_| Operation::RenameImage {
                from: from.clone().into_bytes(),
                to: to.clone().into_bytes(),
            }),
            AdminCall::ImageResize { path, size } => {
                find_image(&self.namespace, path).map(|id| Operation::Resize { id, size: *size })
            }
            _ => Err(AdminError::new(ErrorKind::Internal, "no call about an image")),
        };
        operation.map(|operation| (operation, None))
    }

    /// The change that an administrator asked for has ended.
    pub(crate) fn admin_change_ended(&mut self, number: u64, result: Result<Outcome, NsError>) {
        let Some((call, id)) = self.calls.remove(&number) else {
            return;
        };
        let path = match &call {
            AdminCall::ImageRename { to, .. } => to.as_str(),
            AdminCall::ImageCreate { path, .. }
            | AdminCall::ImageRemove { path }
            | AdminCall::ImageResize { path, .. }
            | AdminCall::ImageInfo { path } => path.as_str(),
            _ => "",
        };
        let answer = match result {
            Err(error) => Err(image_error(path, &error)),
            Ok(_) => Ok(AdminAnswer::Done {}),
        };
        self.answer_call(id, answer);
    }
}

/// The image at a path that an administrator named.
pub(crate) fn find_image(namespace: &Namespace, path: &str) -> Result<ImageId, AdminError> {
    let id = namespace.resolve(path.as_bytes());
    let id = id.map_err(|error| image_error(path, &error))?;
    match namespace.inode(id) {
        Some(inode) if inode.kind == Kind::File => Ok(id),
        _ => Err(AdminError::new(ErrorKind::NotFound, format!("{path} is not an image"))),
    }
}

/// What a failure of the tree of names means to an administrator who asked about `path`.
fn image_error(path: &str, error: &NsError) -> AdminError {
    let (kind, text) = match error {
        NsError::NotFound | NsError::Stale => (
            ErrorKind::NotFound,
            format!("no image {path}; 'trivet image ls' lists what there is"),
        ),
        NsError::Exists => (ErrorKind::Exists, format!("{path} exists already; choose another name")),
        NsError::NotDir => (
            ErrorKind::Conflict,
            format!("{path}: a part of the path is not a directory"),
        ),
        NsError::IsDir => (ErrorKind::Conflict, format!("{path} is a directory, not an image")),
        NsError::Unknown => (
            ErrorKind::Unavailable,
            format!("{path}: {error}; look before trying again"),
        ),
        NsError::NoPool => (ErrorKind::Unavailable, format!("{path}: {NO_POOL}")),
        NsError::NoSpace => (ErrorKind::NoSpace, format!("{path}: {error}")),
        NsError::FileTooBig | NsError::NameTooLong | NsError::Inval => (ErrorKind::Invalid, format!("{path}: {error}")),
        _ => (ErrorKind::Conflict, format!("{path}: {error}")),
    };
    AdminError::new(kind, text)
}
