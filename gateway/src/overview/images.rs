//! Listing images.

use trivet_api::{AdminError, ErrorKind, ImageInfo};
use trivet_core::ImageId;

use super::Overview;
use super::usage::ImageSum;
use crate::images::find_image;

impl Overview {
    /// All images, ascending by path.
    pub(super) fn all_images(&self) -> Vec<ImageInfo> {
        let images = self.namespace.images();
        let mut images: Vec<ImageInfo> = images.filter_map(|id| self.image_info(id).ok()).collect();
        images.sort_by(|a, b| a.path.cmp(&b.path));
        images
    }

    /// The image at a path.
    pub(super) fn image_at(&self, path: &str) -> Result<ImageInfo, AdminError> {
        find_image(&self.namespace, path).and_then(|id| self.image_info(id))
    }

    fn image_info(&self, id: ImageId) -> Result<ImageInfo, AdminError> {
        let gone = || AdminError::new(ErrorKind::NotFound, "the image is gone");
        let inode = self.namespace.inode(id).ok_or_else(gone)?;
        let path = self.path_of(id).ok_or_else(gone)?;
        let mut info = ImageInfo::new(&path, id, inode.size);
        info.pool = self.pool_name(id.pool());
        if let Some(usage) = self.image_usage(id) {
            info.used = Some(usage.used);
            info.objects = Some(usage.objects);
            info.ops = Some(usage.ops.into());
        }
        info.modified = u64::try_from(inode.mtime.sec).ok();
        Ok(info)
    }

    /// What the OSDs have of an image, and the operations on it; nothing is known before all that are up have said so.
    fn image_usage(&self, image: ImageId) -> Option<ImageSum> {
        self.usages.is_complete(&self.map).then(|| self.usages.image(image))
    }
}
