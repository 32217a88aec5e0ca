package control

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prefork-go/prefork/internal/safedir"
)

// A peer is the process at the other end of a connection, as the kernel reports
// it.
type peer struct {
	pid    int // 0 if unknown
	uid    uint32
	groups []uint32
	known  bool // the system reports users
}

func (p peer) String() string {
	switch {
	case !p.known:
		return "an unknown user"
	case p.pid == 0:
		return fmt.Sprintf("user %d", p.uid)
	}
	return fmt.Sprintf("user %d (pid %d)", p.uid, p.pid)
}

// access is the set of requests that a peer may send.
type access uint8

const (
	accessNone access = iota
	accessRead
	accessAll
)

// permissions decide about the access. A negative group is none.
type permissions struct {
	owner          uint32
	group, readers int64

	// A user or group that stands for all those outside the user namespace is not
	// known to be the manager's. A socket's file that is the owner's alone keeps the
	// others away by itself.
	ambiguousOwner, ambiguousGroup, ambiguousReaders bool
	byMode                                           bool
}

func newPermissions(cfg Config) (p permissions, err error) {
	p.owner = uint32(os.Geteuid())
	if p.group, err = groupID(cfg.Group); err != nil {
		return p, fmt.Errorf("Config.Group: %w", err)
	}
	if p.readers, err = groupID(cfg.Readers); err != nil {
		return p, fmt.Errorf("Config.Readers: %w", err)
	}
	p.ambiguousOwner = safedir.Ambiguous(p.owner)
	p.ambiguousGroup = p.group >= 0 && safedir.AmbiguousGroup(uint32(p.group))
	p.ambiguousReaders = p.readers >= 0 && safedir.AmbiguousGroup(uint32(p.readers))
	if !reportsPeers && (p.group >= 0 || p.readers >= 0) {
		return p, errors.New("Config.Group and Readers: this system does not report the users of connections")
	}
	return p, nil
}

func (p permissions) of(c peer) access {
	switch {
	case !c.known:
		return accessAll // the mode of the socket's file has decided
	case c.uid == 0 || c.uid == p.owner && (!p.ambiguousOwner || p.byMode):
		return accessAll
	case p.group >= 0 && !p.ambiguousGroup && slices.Contains(c.groups, uint32(p.group)):
		return accessAll
	case p.readers >= 0 && !p.ambiguousReaders && slices.Contains(c.groups, uint32(p.readers)):
		return accessRead
	}
	return accessNone
}

// refusal returns the error for a peer whose access does not suffice.
func (p permissions) refusal(c peer, has access) *problem {
	who := "root"
	if p.owner != 0 {
		who += fmt.Sprintf(" and user %d", p.owner)
	}
	if p.group >= 0 {
		who += fmt.Sprintf(" and the members of group %d", p.group)
	}
	if has == accessRead {
		return problemf(403, "%v may only ask: commands are for %s", c, who)
	}
	if p.readers >= 0 {
		who += fmt.Sprintf("; members of group %d may ask", p.readers)
	}
	return problemf(403, "%v is not permitted: the socket is for %s", c, who)
}

// ownerOnly is the mode with which a socket is born.
const ownerOnly = 0o600

// mode returns the mode of the socket's file. The peer decides again.
func (p permissions) mode() uint32 {
	switch {
	case p.readers >= 0:
		return 0o666
	case p.group >= 0:
		return 0o660
	}
	return ownerOnly
}

// groupID returns the number of a group, given as a number or as a name in
// /etc/group; -1 for "". Package os/user would cost each worker time.
func groupID(group string) (int64, error) {
	if group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(group, 10, 32); err == nil {
		return int64(n), nil
	}
	file, err := os.ReadFile("/etc/group")
	if err != nil {
		return -1, err
	}
	for line := range strings.Lines(string(file)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) < 3 || fields[0] != group {
			continue
		}
		n, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return -1, fmt.Errorf("group %q has no number in /etc/group", group)
		}
		return int64(n), nil
	}
	return -1, fmt.Errorf("no group %q in /etc/group, the only source of names: use a number for a group from another source", group)
}
