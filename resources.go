package prefork

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/resources"
	"github.com/prefork-go/prefork/internal/wire"
)

// Resources give a worker its share of the machine, and take from it what it does not need. A field that is zero does
// nothing. New checks what can be known in the manager. The worker changes itself in New (so New comes first in main),
// makes sure that it is so for all its threads, and ends with a line in the log where it is not: it never works with
// more than it should have.
type Resources struct {
	// GOMAXPROCS is how many threads of the worker run Go code at a time; 0 leaves it to the runtime, which counts the CPUs
	// of the worker. It is put into the worker's environment, which what the worker starts inherits.
	GOMAXPROCS int

	// GOMEMLIMIT is how many bytes of memory the Go runtime of a worker tries to stay below; 0 means no limit. It limits
	// nothing but how often garbage is collected. It travels as GOMAXPROCS does.
	GOMEMLIMIT int64

	// CPUs are the numbers of the CPUs that workers run on; nil means all those that the manager may run on. Which of
	// them a worker gets is counted off in this order.
	CPUs []int

	// CPUsPerWorker spreads the workers over CPUs: slot 0 gets the first so many, slot 1 the next, and after the last
	// the first again. 0 lets every worker run on all CPUs.
	CPUsPerWorker int

	// Nice is the nice value of a worker, from -20 (first) to 19 (last); 0 leaves it as the manager's is. A value below the
	// manager's needs root.
	Nice int

	// Rlimits are limits of the worker; each resource at most once. Others stay as the manager's are. A hard limit above
	// the manager's needs root.
	Rlimits []Rlimit

	// Cgroup is the directory of a cgroup (version 2) that workers are started in, such as /sys/fs/cgroup/site/workers. It
	// must exist, and may hold processes. Linux 5.7 only.
	Cgroup string

	// User is whom a worker runs as: a name in /etc/passwd, or a number. Only a manager that runs as root can have
	// workers of another user. Other sources of names (LDAP, by NSS) are not asked. The worker keeps no
	// capability, is not dumpable any more (no core, no debugger but root's), and has the manager's HOME and USER.
	User string

	// Group is the group of a worker, a name in /etc/group or a number; "" means the one that /etc/passwd gives User. It
	// needs User.
	Group string

	// Groups are the supplementary groups of a worker; nil means those of which /etc/group says that User is a
	// member, empty means none. They need User.
	Groups []string

	// Chroot is the directory that a worker has for its root, an absolute path. It is the worker's working directory, too.
	// What was opened before stays open: sockets, standard streams, Spawn.Files. What the program reads later
	// (time zones, certificates, resolv.conf, /dev/null for os/exec) it looks for in there. It needs root.
	Chroot string

	// NoNewPrivs keeps a worker, and all that it starts, from gaining rights by running a file (set-user-ID, file
	// capabilities). Linux only. A program that links cgo needs seccomp for it.
	NoNewPrivs bool
}

// Rlimit is a limit that the kernel sets a process. Resource is one of
//
//	as       bytes of address space (not on OpenBSD; Go reserves more than it uses)
//	core     bytes of a core file
//	cpu      seconds of processor time
//	data     bytes of data
//	fsize    bytes of a file that is written
//	memlock  bytes that are locked into memory
//	nofile   one more than the highest descriptor; Go uses no soft limit here, but raises it to the hard one when a program starts
//	nproc    threads of the worker's user, on Linux, in all of his processes; not looked at for root
//	stack    bytes of the first thread's stack
type Rlimit struct {
	Resource string
	Soft     uint64 // what counts
	Hard     uint64 // as far as the worker may raise Soft; 0 means the same as Soft
}

// Unlimited as Soft or Hard is no limit.
const Unlimited = math.MaxUint64

// check looks at the resources in the manager.
func (r Resources) check(command, standbys bool) (*resources.Settings, error) {
	c := resources.Config{
		GOMAXPROCS: r.GOMAXPROCS, GOMEMLIMIT: r.GOMEMLIMIT, CPUs: r.CPUs, CPUsPerWorker: r.CPUsPerWorker, Nice: r.Nice,
		Cgroup: r.Cgroup, User: r.User, Group: r.Group, Groups: r.Groups, Chroot: r.Chroot, NoNewPrivs: r.NoNewPrivs,
	}
	for _, l := range r.Rlimits {
		c.Rlimits = append(c.Rlimits, resources.Rlimit(l))
	}
	s, err := resources.Check(c, command)
	if err == nil && standbys {
		err = s.CheckStandby(wire.MaxPlan)
	}
	var bad *resources.FieldError
	if errors.As(err, &bad) {
		return nil, &ConfigError{Field: "Resources." + bad.Field, Err: bad.Err}
	}
	return s, err
}

// outOfMemory tells whether it was the kernel that killed a worker which has ended. It looks only where a SIGKILL came that is
// not this Manager's.
func (m *Manager) outOfMemory(c *child) bool {
	return int(c.status.Signal) == signum(os.Kill) && c.State != StateKilled && m.kills.Next()
}

// confine puts this worker's resources into force, once; what they may leave no room for is had before. A program may ignore an error of New, and would go on with
// rights that it should not have; so there is none.
func (p *process) confine() {
	p.confined.Do(func() {
		p.cellErr = p.openCell()
		p.follow(p.marker.Resources)
	})
}

func (p *process) follow(plan string) {
	if err := resources.Apply(plan); err != nil {
		fmt.Fprintf(os.Stderr, "prefork: worker %d of slot %d ends, since it cannot have the resources that it should: %v\n", os.Getpid(), p.slot(), err)
		inherit.Exit(1)
	}
}
