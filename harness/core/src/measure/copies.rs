//! Rotated copies, made ahead of the model on a thread of their own.

use super::portion::Portion;
use crate::{Batch, CoreError, act};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::Scope,
};

/// One rotated copy of the samples of a portion.
pub(super) struct RotatedCopy {
    pub(super) of: Arc<Portion>,
    pub(super) copy: Batch,
}

/// Copies, or predictions, that wait for whoever takes them, besides the one that is made and the one that is used.
pub(super) const WAITING: usize = 1;

/// Rotated copies, made ahead of the model. Buffers go round.
pub(super) struct Copies {
    made: Receiver<Result<RotatedCopy, CoreError>>,
    used: Sender<Batch>,
}

impl Copies {
    pub(super) fn ahead<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        portions: impl Iterator<Item = Result<Portion, CoreError>> + Send + 'scope,
    ) -> Self {
        let (to_model, made) = sync_channel(WAITING);
        let (used, free): (Sender<Batch>, Receiver<Batch>) = channel();
        scope.spawn(move || {
            for portion in portions {
                // Nobody waits for it where the model failed; nothing follows what could not be made.
                if !send_copies(portion, &to_model, &free) {
                    break;
                }
            }
        });
        Self { made, used }
    }

    /// The next copy; `None` after the last.
    pub(super) fn next(&self) -> Result<Option<RotatedCopy>, CoreError> {
        self.made.recv().ok().transpose()
    }

    pub(super) fn give_back(&self, copy: Batch) {
        // The last copies are not wanted any more.
        let _ = self.used.send(copy);
    }
}

/// Whether all of them were made and taken.
fn send_copies(
    portion: Result<Portion, CoreError>,
    to_model: &SyncSender<Result<RotatedCopy, CoreError>>,
    free: &Receiver<Batch>,
) -> bool {
    let checked = portion.and_then(|portion| Ok((portion.copies()?, Arc::new(portion))));
    let (copies, portion) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            let _ = to_model.send(Err(error));
            return false;
        }
    };
    (0..copies).all(|index| {
        let mut copy = free.try_recv().unwrap_or_default();
        let made = act(
            &portion.rotations(index),
            &portion.samples.inputs,
            &mut copy,
        )
        .map(|()| RotatedCopy {
            of: Arc::clone(&portion),
            copy,
        });
        let is_made = made.is_ok();
        to_model.send(made).is_ok() && is_made
    })
}
