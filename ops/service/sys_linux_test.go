package service

import "testing"

// File systems that other machines can change are polled. The numbers are those
// of linux/magic.h and of the file systems' own sources.
func TestNetworkFileSystems(t *testing.T) {
	for name, c := range map[string]struct {
		magic uint32
		want  bool
	}{
		"nfs": {0x6969, true}, "cifs": {0xff534d42, true}, "smb2": {0xfe534d42, true}, "ceph": {0x00c36400, true},
		"gfs2": {0x01161970, true}, "ocfs2": {0x7461636f, true}, "lustre": {0x0bd00bd0, true}, "gpfs": {0x47504653, true},
		"9p": {0x01021997, true}, "fuse and virtiofs": {0x65735546, true}, "vboxsf": {0x786f4256, true},
		"tmpfs": {0x01021994, false}, "ext4": {0xef53, false}, "xfs": {0x58465342, false}, "btrfs": {0x9123683e, false},
		"overlay": {0x794c7630, false},
	} {
		if got := isNetwork(c.magic); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
