// Package resources confines a worker: CPUs, memory, priority, limits, cgroup,
// user and root directory. The manager checks the configuration and looks up
// all names (Check). It writes a plan for each slot into the marker of the
// worker. The worker carries the plan out (Apply) before it does anything else.
//
// # Division of work
//
// A worker is a new process of the manager's program. After a chroot the kernel
// finds no /proc/self/exe, and another user may not run a file of mode 0700. So
// the new process starts with the identity of the manager and changes itself.
// Two kinds of settings are made when the process starts: the variables that
// the Go runtime reads at startup (GOMAXPROCS, GOMEMLIMIT), and the cgroup,
// because a worker that moved itself would first run in the wrong one.
//
// # Threads
//
// On Linux the user, the nice value, the CPUs and no-new-privileges are
// attributes of a thread, and a Go program has several threads before main
// runs. A change that misses one thread is worthless, because the scheduler
// moves goroutines between threads. Each change is made for all threads and
// verified for all of them. Threads that start later inherit it from their
// creators.
package resources

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Config is the requested configuration. The fields are documented at
// prefork.Resources.
type Config struct {
	GOMAXPROCS    int
	GOMEMLIMIT    int64
	CPUs          []int
	CPUsPerWorker int
	Nice          int
	Umask         string
	Rlimits       []Rlimit
	Cgroup        string
	User          string
	Group         string
	Groups        []string
	Chroot        string
	NoNewPrivs    bool
}

// Rlimit is documented at prefork.Rlimit.
type Rlimit struct {
	Resource string
	Soft     uint64
	Hard     uint64
}

// Unlimited means no limit, as Soft or Hard.
const Unlimited = math.MaxUint64

// FieldError names the field of Config that is wrong or could not be applied.
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

// Settings is a checked Config. It does not change, except for the descriptor of
// the cgroup (see Attr), and is otherwise safe for concurrent use until Close.
type Settings struct {
	env    []string
	procs  int   // GOMAXPROCS of a sole worker; 0 if the workers' is not shared out
	cpus   []int // nil means the CPUs of the manager
	per    int   // CPUs for each worker; zero means all
	plan   plan  // without cpus, which Plan adds for a slot
	cgroup *os.File
}

// Check checks a Config in the manager and looks up its names. It reports every
// mistake that this process can detect as a *FieldError, so that no worker
// fails later. If a field is not available on this system, the error also wraps
// errors.ErrUnsupported.
//
// New calls Check once. If a user or a group changes on disk afterwards, the
// workers keep the old one. With command, the workers are other programs, which
// cannot change themselves: NeedsStep reports whether another must do it. Check
// changes nothing and requires only the privileges that the Config requires.
func Check(c Config, command bool) (*Settings, error) {
	s := &Settings{per: c.CPUsPerWorker, plan: plan{nice: c.Nice, noNewPrivs: c.NoNewPrivs}}
	if c.GOMAXPROCS < -1 {
		return nil, fieldError("GOMAXPROCS", "%d is negative; 0 means a share of the CPUs, -1 leaves it alone", c.GOMAXPROCS)
	}
	if c.GOMAXPROCS > maxProcs {
		return nil, fieldError("GOMAXPROCS", "%d is more than the %d CPUs that Linux supports: leave it 0 for a share of the CPUs", c.GOMAXPROCS, maxProcs)
	}
	if c.GOMAXPROCS > 0 {
		s.env = append(s.env, procsEnv+"="+strconv.Itoa(c.GOMAXPROCS))
	}
	if c.GOMEMLIMIT < 0 {
		return nil, fieldError("GOMEMLIMIT", "%d is negative; 0 means no limit", c.GOMEMLIMIT)
	}
	if c.GOMEMLIMIT > 0 {
		s.env = append(s.env, "GOMEMLIMIT="+strconv.FormatInt(c.GOMEMLIMIT, 10))
	}
	for _, check := range []func(*Settings, Config) error{checkCPUs, checkNice, checkUmask, checkRlimits, checkUser, checkChroot, checkNoNewPrivs, checkCgroup} {
		if err := check(s, c); err != nil {
			return nil, err
		}
	}
	if c.GOMAXPROCS == 0 && !command {
		s.procs = runtime.GOMAXPROCS(0) // it knows the CPU limit of a container
		if s.cpus != nil {
			s.procs = min(s.procs, len(s.cpus))
		}
	}
	return s, nil
}

// NeedsStep reports whether a Command needs a first step that applies the plan and
// then executes it. Starting a process can set the user and the root directory,
// but neither limits nor attributes of the starting thread.
func (s *Settings) NeedsStep() bool {
	p := s.plan
	return len(p.limits) > 0 || p.nice != 0 || p.umask != nil || s.cpus != nil || p.noNewPrivs
}

// Env returns the environment variables of a worker, one of this many, in
// addition to its plan. By default GOMAXPROCS is the worker's share of the CPUs,
// unless the environment has a value: each thread that runs Go code takes part
// in garbage collection, and beyond the number of CPUs they only contend.
func (s *Settings) Env(workers int) []string {
	env := slices.Clone(s.env)
	if s.procs > 0 && os.Getenv(procsEnv) == "" {
		env = append(env, procsEnv+"="+strconv.Itoa(s.share(workers)))
	}
	return env
}

const procsEnv = "GOMAXPROCS"

// maxProcs is the greatest number of CPUs that a Linux kernel can be built for.
// The Go runtime accepts more, and then takes minutes and gigabytes to start;
// values that need 64 bits it ignores.
const maxProcs = 8192

// share returns the CPUs divided by the number of workers, rounded up, and at
// most those on which one worker may run.
func (s *Settings) share(workers int) int {
	workers = min(max(workers, 1), s.procs)
	n := (s.procs + workers - 1) / workers
	if s.per > 0 {
		n = min(n, s.per)
	}
	return n
}

// Plan returns the plan of a slot, for Apply in its worker, or "" if there is
// nothing to do. A negative slot, of a worker that has no slot yet, gets all
// CPUs.
func (s *Settings) Plan(slot int) string {
	p := s.plan
	p.cpus = spread(s.cpus, s.per, slot)
	return p.String()
}

// SlotPlan returns the part of Plan that depends on the slot, for a standby
// that has applied a plan already. It returns "" if no part does.
func (s *Settings) SlotPlan(slot int) string {
	if s.per == 0 {
		return ""
	}
	return plan{cpus: spread(s.cpus, s.per, slot)}.String()
}

// CheckStandby checks that the SlotPlan of every slot can be applied by a
// standby and fits into size bytes.
func (s *Settings) CheckStandby(size int) error {
	if s.per > 0 && s.plan.chroot != "" {
		return fieldError("CPUsPerWorker", "a standby that has changed its root can no longer see its threads to set their CPUs: leave out one of CPUsPerWorker, Chroot and Config.Standby")
	}
	for slot := range s.cpus {
		if n := len(s.SlotPlan(slot)); n > size {
			return fieldError("CPUsPerWorker", "the list of the CPUs of slot %d is too long for a message to a standby (%d bytes, at most %d): use CPUs with consecutive numbers", slot, n, size)
		}
	}
	return nil
}

// Close closes the cgroup. It should be called after the last worker has been
// started. A second call is a no-op.
func (s *Settings) Close() {
	if s.cgroup != nil {
		s.cgroup.Close()
	}
}

// spread returns the CPUs of a slot: per of them, counted off in order,
// starting over at the end of the list.
func spread(cpus []int, per, slot int) []int {
	mine := slices.Clone(cpus)
	if n := len(cpus); per > 0 && per < n && slot >= 0 {
		first := slot % n * per % n
		mine = mine[:0]
		for i := range per {
			mine = append(mine, cpus[(first+i)%n])
		}
	}
	slices.Sort(mine)
	return mine
}

func checkRlimits(s *Settings, c Config) error {
	for _, l := range c.Rlimits {
		if l.Hard == 0 {
			l.Hard = l.Soft
		}
		switch {
		case !slices.Contains(limitNames, l.Resource):
			return fieldError("Rlimits", "%q is not one of %s", l.Resource, strings.Join(limitNames, ", "))
		case slices.ContainsFunc(s.plan.limits, func(o Rlimit) bool { return o.Resource == l.Resource }):
			return fieldError("Rlimits", "%s is given twice", l.Resource)
		case l.Soft > l.Hard:
			return fieldError("Rlimits", "%s: the soft limit (%s) is above the hard limit (%s)", l.Resource, amount(l.Soft), amount(l.Hard))
		}
		if err := checkLimit(l); err != nil {
			return fieldError("Rlimits", "%s: %w", l.Resource, err)
		}
		s.plan.limits = append(s.plan.limits, l)
	}
	slices.SortFunc(s.plan.limits, func(a, b Rlimit) int { return strings.Compare(a.Resource, b.Resource) })
	return nil
}

// limitNames is sorted.
var limitNames = []string{"as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"}

func amount(n uint64) string {
	if n == Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func checkChroot(s *Settings, c Config) error {
	if c.Chroot == "" {
		return nil
	}
	if !filepath.IsAbs(c.Chroot) || strings.IndexByte(c.Chroot, 0) >= 0 {
		return fieldError("Chroot", "%q is not an absolute path", c.Chroot)
	}
	if err := checkMayChroot(); err != nil {
		return fieldError("Chroot", "%w", err)
	}
	info, err := os.Stat(c.Chroot)
	if err != nil {
		return fieldError("Chroot", "%w", err)
	}
	if !info.IsDir() {
		return fieldError("Chroot", "%s is not a directory", c.Chroot)
	}
	s.plan.chroot = filepath.Clean(c.Chroot)
	return nil
}

func checkNice(_ *Settings, c Config) error {
	if c.Nice < minNice || c.Nice > maxNice {
		return fieldError("Nice", "%d is not between %d and %d", c.Nice, minNice, maxNice)
	}
	if c.Nice != 0 {
		if err := checkMayNice(c.Nice); err != nil {
			return fieldError("Nice", "%d: %w", c.Nice, err)
		}
	}
	return nil
}

func checkUmask(s *Settings, c Config) error {
	if c.Umask == "" {
		return nil
	}
	mask, err := strconv.ParseUint(c.Umask, 8, 16)
	if err != nil || mask > maxUmask {
		return fieldError("Umask", "%q is not an octal number from 0 to 777, such as 027", c.Umask)
	}
	s.plan.umask = new(int(mask))
	return checkMayUmask()
}
