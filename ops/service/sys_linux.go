package service

import "golang.org/x/sys/unix"

// maxPath is the length of a path that the system refuses.
const maxPath = unix.PathMax

// maxName returns the length of the longest file name in a directory.
func maxName(dir string) int {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Namelen <= 0 {
		return unix.NAME_MAX
	}
	return int(st.Namelen)
}

// onNetwork reports whether other machines can change files of a directory
// without a notification from this kernel.
func onNetwork(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	return isNetwork(uint32(st.Type)) // the width of Type depends on the architecture
}

// These numbers of file systems are not in package unix.
const (
	gfs2Magic   = 0x01161970
	lustreMagic = 0x0bd00bd0
	gpfsMagic   = 0x47504653
	beegfsMagic = 0x19830326
	panfsMagic  = 0xaad7aaea
	vboxsfMagic = 0x786f4256 // shared folders of VirtualBox
	vmhgfsMagic = 0xbacbacbc // and of VMware
	prlfsMagic  = 0x7c7c6673 // and of Parallels
)

// isNetwork reports whether a type of file system is shared with other machines,
// or with the host of this one. Virtiofs has the type of FUSE.
func isNetwork(magic uint32) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CODA_SUPER_MAGIC,
		unix.NCP_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC,
		gfs2Magic, lustreMagic, gpfsMagic, beegfsMagic, panfsMagic, vboxsfMagic, vmhgfsMagic, prlfsMagic:
		return true
	}
	return false
}
