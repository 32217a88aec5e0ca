package prefork

import (
	"errors"
	"math"

	"github.com/prefork-go/prefork/internal/resources"
	"github.com/prefork-go/prefork/internal/wire"
)

// Resources limits a worker and gives it its share of the machine. A zero field
// changes nothing. New checks in the manager as much as can be checked there. A
// worker applies its resources in its own New, so New should be the first call
// of main. It verifies them for all its threads. If one of them is not in effect
// the worker logs the reason and exits: it never works with more rights than it
// should have.
type Resources struct {
	// GOMAXPROCS is the number of threads of a worker that run Go code at a time.
	// 0 leaves it to the runtime, which counts the worker's CPUs. It is set in the
	// worker's environment, which the worker's own children inherit.
	GOMAXPROCS int

	// GOMEMLIMIT is the number of bytes below which the Go runtime of a worker
	// tries to stay; 0 means no limit. It only affects how often the garbage
	// collector runs. It is set in the worker's environment.
	GOMEMLIMIT int64

	// CPUs are the numbers of the CPUs on which workers run, in the order in which
	// they are assigned. nil means all those of the manager.
	CPUs []int

	// CPUsPerWorker spreads the workers over the CPUs: slot 0 gets the first
	// CPUsPerWorker of them, slot 1 the next, and so on, starting over at the end.
	// 0 lets every worker run on all CPUs.
	CPUsPerWorker int

	// Nice is the nice value of a worker, from -20 (first) to 19 (last). 0 keeps
	// that of the manager. A lower value than the manager's needs root.
	Nice int

	// Rlimits are limits of the worker, each resource at most once. Others stay as
	// in the manager. A higher hard limit than the manager's needs root.
	Rlimits []Rlimit

	// Cgroup is the directory of a version 2 cgroup in which workers are started,
	// such as /sys/fs/cgroup/site/workers. It must exist and be able to hold
	// processes. Linux 5.7 or later.
	Cgroup string

	// User is the user of a worker: a name in /etc/passwd, or a number. It needs a
	// manager that runs as root. Other sources of names (LDAP, by NSS) are not
	// consulted. The worker keeps no capability, is not dumpable (no core, no
	// debugger but root's), and has the manager's HOME and USER.
	User string

	// Group is the group of a worker: a name in /etc/group, or a number. "" means
	// the group that /etc/passwd has for User. It requires User.
	Group string

	// Groups are the supplementary groups of a worker. nil means those that
	// /etc/group has for User; empty means none. They require User.
	Groups []string

	// Chroot is the root directory of a worker, an absolute path. It is also the
	// worker's working directory. Sockets, standard streams and Spawn.Files stay
	// open. Files that the program reads later (time zones, certificates,
	// resolv.conf, /dev/null for os/exec) must exist in there. It needs root.
	Chroot string

	// NoNewPrivs keeps a worker and its children from gaining privileges by
	// executing a file (setuid, file capabilities). Linux only. A program that
	// links cgo needs seccomp for it.
	NoNewPrivs bool
}

// Rlimit is a resource limit of a process. Resource is one of
//
//	as       bytes of address space (not on OpenBSD; Go reserves more than it uses)
//	core     bytes of a core file
//	cpu      seconds of CPU time
//	data     bytes of data
//	fsize    bytes of a file that is written
//	memlock  bytes of locked memory
//	nofile   one more than the highest descriptor; Go raises its soft limit to the hard one at start
//	nproc    threads of the worker's user, on Linux in all processes of the user; not applied to root
//	stack    bytes of the first thread's stack
type Rlimit struct {
	Resource string
	Soft     uint64 // the limit in effect
	Hard     uint64 // up to this the worker may raise Soft; 0 means the same as Soft
}

// Unlimited, as Soft or Hard, means no limit.
const Unlimited = math.MaxUint64

// check checks the resources in the manager.
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
