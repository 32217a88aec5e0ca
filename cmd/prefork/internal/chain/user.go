//go:build unix

package chain

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// An identity is a user and its groups, the first of which is the main one.
type identity struct {
	uid    int
	groups []int
}

// lookUp returns the identity of USER, USER:GROUP:GROUP, or :UID:GID:GID. Without
// groups it is the user's own group alone.
func lookUp(text string) (id identity, err error) {
	names := strings.Split(text, ":")
	if names[0] == "" {
		return numbers(text, names[1:])
	}
	u, err := user.Lookup(names[0])
	if err != nil {
		return id, fmt.Errorf("no user %q; a number is given as :UID:GID", names[0])
	}
	if id.uid, err = strconv.Atoi(u.Uid); err != nil {
		return id, fmt.Errorf("user %s: %w", names[0], err)
	}
	gids := []string{u.Gid}
	if len(names) > 1 {
		gids = nil
		for _, name := range names[1:] {
			g, err := user.LookupGroup(name)
			if err != nil {
				return id, fmt.Errorf("%s: no group %q", text, name)
			}
			gids = append(gids, g.Gid)
		}
	}
	for _, gid := range gids {
		n, err := strconv.Atoi(gid)
		if err != nil {
			return id, fmt.Errorf("group %s: %w", gid, err)
		}
		id.groups = append(id.groups, n)
	}
	return id, nil
}

func numbers(text string, list []string) (id identity, err error) {
	if len(list) < 2 {
		return id, fmt.Errorf("%s: give numbers as :UID:GID", text)
	}
	for i, s := range list {
		n, err := strconv.ParseUint(s, 10, 32)
		switch {
		case err != nil || n == 1<<32-1: // the kernel's "no change"
			return id, fmt.Errorf("%s: %q is not a number of a user or group", text, s)
		case i == 0:
			id.uid = int(n)
		default:
			id.groups = append(id.groups, int(n))
		}
	}
	return id, nil
}

// become gives up the rights of this process, and checks that they are gone.
func (id identity) become() error {
	if err := syscall.Setgroups(id.groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(id.groups[0]); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := syscall.Setuid(id.uid); err != nil {
		return os.NewSyscallError("setuid", err)
	}
	if os.Getuid() != id.uid || os.Geteuid() != id.uid || os.Getgid() != id.groups[0] || os.Getegid() != id.groups[0] {
		return fmt.Errorf("set, but user %d and group %d are in force", os.Geteuid(), os.Getegid())
	}
	return nil
}
