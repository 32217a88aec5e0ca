//go:build aix || illumos || solaris

package resources

import "golang.org/x/sys/unix"

func moreRlimits(name string) (number int, ok bool) { return unix.RLIMIT_AS, name == "as" }
