package resources

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// names holds the contents of /etc/passwd and /etc/group. This package does not
// use os/user, which costs every worker that links it a quarter of a
// millisecond at startup, and more with cgo.
type names struct {
	passwd, group []byte
}

func readNames() (n names, err error) {
	for path, dst := range map[string]*[]byte{"/etc/passwd": &n.passwd, "/etc/group": &n.group} {
		// A container may have neither file and identify users by number.
		if *dst, err = os.ReadFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
	}
	return n, nil
}

// entries calls f with the fields of each line until f returns true. It skips
// comments, and the lines by which NIS was included ("+", "-").
func entries(file []byte, f func(line int, fields []string) bool) {
	n := 0
	for raw := range bytes.Lines(file) {
		n++
		line := strings.TrimSuffix(string(raw), "\n")
		if line == "" || strings.IndexByte("#+-", line[0]) >= 0 {
			continue
		}
		if f(n, strings.Split(line, ":")) {
			return
		}
	}
}

// account is a user in /etc/passwd.
type account struct {
	name     string
	uid, gid uint32
}

// user looks up a user by name. As in the C library, the first line with that
// name counts.
func (n names) user(name string) (a account, err error) {
	err = fmt.Errorf("no user %q in /etc/passwd, the only source of names: use a number for a user from another source", truncate(name))
	entries(n.passwd, func(line int, fields []string) bool {
		if fields[0] != name {
			return false
		}
		a, err = parseAccount(fields)
		if err != nil {
			err = fmt.Errorf("line %d of /etc/passwd, for %q: %w", line, truncate(name), err)
		}
		return true
	})
	return a, err
}

// userID looks up a user by number. The number need not be in the file.
func (n names) userID(uid uint32) (found account, ok bool) {
	entries(n.passwd, func(_ int, fields []string) bool {
		if a, err := parseAccount(fields); err == nil && a.uid == uid {
			found, ok = a, true
		}
		return ok
	})
	return found, ok
}

func parseAccount(fields []string) (a account, err error) {
	if len(fields) < 4 || fields[0] == "" {
		return a, errors.New("want name, password, user and group")
	}
	a.name = fields[0]
	if a.uid, err = parseID(fields[2]); err != nil {
		return a, fmt.Errorf("user: %w", err)
	}
	if a.gid, err = parseID(fields[3]); err != nil {
		return a, fmt.Errorf("group: %w", err)
	}
	return a, nil
}

// groupID returns the number of a group given by name or number.
func (n names) groupID(group string) (gid uint32, err error) {
	if isNumber(group) {
		return parseID(group)
	}
	err = fmt.Errorf("no group %q in /etc/group, the only source of names: use a number for a group from another source", truncate(group))
	entries(n.group, func(line int, fields []string) bool {
		if fields[0] != group {
			return false
		}
		err = errors.New("want name, password and number")
		if len(fields) >= 3 {
			gid, err = parseID(fields[2])
		}
		if err != nil {
			err = fmt.Errorf("line %d of /etc/group, for %q: %w", line, truncate(group), err)
		}
		return true
	})
	return gid, err
}

// groupsOf returns the groups that list user as a member. It skips a malformed
// line, which can only result in one group fewer.
func (n names) groupsOf(user string) (all []uint32) {
	entries(n.group, func(_ int, fields []string) bool {
		if len(fields) < 4 || fields[0] == "" {
			return false
		}
		gid, err := parseID(fields[2])
		if err != nil {
			return false
		}
		for member := range strings.SplitSeq(fields[3], ",") {
			if strings.TrimSpace(member) == user {
				all = append(all, gid)
			}
		}
		return false
	})
	return all
}

// identify returns the identity that User, Group and Groups describe.
func identify(c Config, n names) (*identity, error) {
	var a account
	var err error
	known := true
	if isNumber(c.User) {
		var uid uint32
		if uid, err = parseID(c.User); err == nil {
			a, known = n.userID(uid)
			a.uid = uid
		}
	} else {
		a, err = n.user(c.User)
	}
	if err != nil {
		return nil, &FieldError{"User", err}
	}
	id := &identity{uid: a.uid, gid: a.gid}
	switch {
	case c.Group != "":
		if id.gid, err = n.groupID(c.Group); err != nil {
			return nil, &FieldError{"Group", err}
		}
	case !known:
		return nil, fieldError("Group", "user %d is not in /etc/passwd, so its group must be given", id.uid)
	}
	switch {
	case c.Groups != nil:
		for _, g := range c.Groups {
			gid, err := n.groupID(g)
			if err != nil {
				return nil, &FieldError{"Groups", err}
			}
			id.groups = append(id.groups, gid)
		}
	case known:
		id.groups = n.groupsOf(a.name)
	}
	// The supplementary groups do not include the group itself, so the list
	// may become empty.
	slices.Sort(id.groups)
	id.groups = slices.DeleteFunc(slices.Compact(id.groups), func(g uint32) bool { return g == id.gid })
	if len(id.groups) > maxGroups {
		return nil, fieldError("Groups", "%d groups are more than the system allows (%d)", len(id.groups), maxGroups)
	}
	return id, nil
}
