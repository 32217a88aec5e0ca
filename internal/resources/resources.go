// Package resources gives a worker its share of the machine, and takes from it what it does not need: processors, memory,
// priority, limits, cgroup, user, root directory. The manager checks what is asked for and looks up all names
// (Check), and writes a plan for each slot into the marker of the worker, which follows it (Apply) before it does
// anything else.
//
// # Which half does what
//
// A worker is the manager's program started anew, and after a chroot the kernel finds no /proc/self/exe, nor may another
// user run a file of mode 0700. So the new process starts as the manager is, and changes itself. Only what must be
// there before the runtime starts (GOMAXPROCS, GOMEMLIMIT), or cannot be had later without a moment in the wrong place
// (the cgroup), comes with the start of the process.
//
// # Threads
//
// For Linux a user, a nice value, a set of CPUs and no-new-privileges belong to a thread, and a Go program has several
// before main runs. A change that misses one of them is worthless: the scheduler moves goroutines between threads. Each change
// here is made for all threads, and read back for all of them; threads that are started later take it from their creators.
package resources

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Config is what is asked for; prefork.Resources says what the fields mean.
type Config struct {
	GOMAXPROCS    int
	GOMEMLIMIT    int64
	CPUs          []int
	CPUsPerWorker int
	Nice          int
	Rlimits       []Rlimit
	Cgroup        string
	User          string
	Group         string
	Groups        []string
	Chroot        string
	NoNewPrivs    bool
}

// Rlimit is prefork.Rlimit.
type Rlimit struct {
	Resource string
	Soft     uint64
	Hard     uint64
}

// Unlimited as Soft or Hard is no limit.
const Unlimited = math.MaxUint64

// FieldError says which field of Config is wrong, or could not be put into force.
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

// Settings is what a Config comes to in this manager. It does not change, and may be used in any goroutine until Close.
type Settings struct {
	env    []string
	cpus   []int // nil: those of the manager
	per    int
	plan   plan // CPUs is filled in for each slot
	cgroup *os.File
}

// Check looks at a Config in the manager, and looks up its names. Whatever this process can know to be wrong is a
// *FieldError here, and not the end of a worker; where a field is not to be had on this system it is errors.ErrUnsupported,
// too. It is called once, by New; when a user or a group changes on disk, the workers' does not. command says that the
// workers are other programs, which cannot change themselves: fields that the start of a process cannot
// set are refused. It needs no more than the rights that it asks for, and changes nothing.
func Check(c Config, command bool) (*Settings, error) {
	if command {
		if err := checkCommand(c); err != nil {
			return nil, err
		}
	}
	s := &Settings{per: c.CPUsPerWorker, plan: plan{nice: c.Nice, noNewPrivs: c.NoNewPrivs}}
	if c.GOMAXPROCS < 0 {
		return nil, fieldError("GOMAXPROCS", "%d is negative; 0 leaves it to the runtime", c.GOMAXPROCS)
	}
	if c.GOMAXPROCS > 0 {
		s.env = append(s.env, "GOMAXPROCS="+strconv.Itoa(c.GOMAXPROCS))
	}
	if c.GOMEMLIMIT < 0 {
		return nil, fieldError("GOMEMLIMIT", "%d is negative; 0 means no limit", c.GOMEMLIMIT)
	}
	if c.GOMEMLIMIT > 0 {
		s.env = append(s.env, "GOMEMLIMIT="+strconv.FormatInt(c.GOMEMLIMIT, 10))
	}
	for _, check := range []func(*Settings, Config) error{checkCPUs, checkNice, checkRlimits, checkUser, checkChroot, checkNoNewPrivs, checkCgroup} {
		if err := check(s, c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkCommand refuses what only a program that knows of this library can do: the start of a process sets no limits,
// and nothing of the thread that starts it.
func checkCommand(c Config) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"CPUs", c.CPUs != nil}, {"CPUsPerWorker", c.CPUsPerWorker != 0}, {"Nice", c.Nice != 0}, {"Rlimits", len(c.Rlimits) > 0},
		{"NoNewPrivs", c.NoNewPrivs},
	} {
		if f.set {
			return fieldError(f.name, "%w for a Command, which cannot do it itself: have a program such as taskset, nice, prlimit or setpriv run it", errors.ErrUnsupported)
		}
	}
	return nil
}

// Env are the variables that the workers of a Config get, beside their plan.
func (s *Settings) Env() []string { return slices.Clone(s.env) }

// Plan is the text that the worker of a slot is to be handed, for Apply; "" where there is nothing to do. A slot below 0,
// of a worker that has none yet, gets all CPUs.
func (s *Settings) Plan(slot int) string {
	p := s.plan
	p.cpus = spread(s.cpus, s.per, slot)
	return p.String()
}

// SlotPlan is the part of Plan that differs from slot to slot, for a worker that follows the plan of no slot already; ""
// where there is none.
func (s *Settings) SlotPlan(slot int) string {
	if s.per == 0 {
		return ""
	}
	return plan{cpus: spread(s.cpus, s.per, slot)}.String()
}

// CheckStandby looks at what a worker can still be given when it follows a plan already, in no more than size bytes.
func (s *Settings) CheckStandby(size int) error {
	if s.per > 0 && s.plan.chroot != "" {
		return fieldError("CPUsPerWorker", "a standby that has changed its root cannot see its threads any more, to give them the CPUs of its slot: leave out one of CPUsPerWorker, Chroot and Config.Standby")
	}
	for slot := range s.cpus {
		if n := len(s.SlotPlan(slot)); n > size {
			return fieldError("CPUsPerWorker", "the CPUs of slot %d, written down, are too many for a message to a standby (%d bytes, at most %d): name CPUs that lie side by side", slot, n, size)
		}
	}
	return nil
}

// Close lets go of the cgroup. It may be called twice.
func (s *Settings) Close() {
	if s.cgroup != nil {
		s.cgroup.Close()
	}
}

// spread counts off the CPUs of a slot.
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
			return fieldError("Rlimits", "%q is none of %s", l.Resource, strings.Join(limitNames, ", "))
		case slices.ContainsFunc(s.plan.limits, func(o Rlimit) bool { return o.Resource == l.Resource }):
			return fieldError("Rlimits", "%s is given twice", l.Resource)
		case l.Soft > l.Hard:
			return fieldError("Rlimits", "%s: the soft limit (%s) is above the hard one (%s)", l.Resource, amount(l.Soft), amount(l.Hard))
		}
		if err := mayLimit(l); err != nil {
			return fieldError("Rlimits", "%s: %w", l.Resource, err)
		}
		s.plan.limits = append(s.plan.limits, l)
	}
	slices.SortFunc(s.plan.limits, func(a, b Rlimit) int { return strings.Compare(a.Resource, b.Resource) })
	return nil
}

// limitNames are in order.
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
	if err := mayChroot(); err != nil {
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
		if err := mayNice(c.Nice); err != nil {
			return fieldError("Nice", "%d: %w", c.Nice, err)
		}
	}
	return nil
}
