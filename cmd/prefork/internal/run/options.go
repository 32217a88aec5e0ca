// Package run is the verb run of the command prefork: it keeps any program
// running, as a pool of workers with reloads that lose no request.
package run

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/internal/envdir"
	"github.com/prefork-go/prefork/internal/values"
)

// Options are the values of the flags.
type Options struct {
	Args []string // the program with its arguments

	Workers int
	Surge   int
	Name    string

	Listen, Port, Path []string
	Backlog            int
	Pass               string

	Trap                     []string
	StopSignal, SignalOnTerm string
	StopTimeout              time.Duration
	Group, NoGroup           bool
	SignalOnHup              string
	KillOldDelay             string

	Ready, Interval string
	ReadyTimeout    time.Duration

	Backoff, Restart, Success, GiveUp string
	MaxAge                            time.Duration
	MaxMemory                         string
	AutoRestart                       bool
	AutoRestartInterval               string

	Env, Unset  []string
	CleanEnv    bool
	EnvDir, Dir string

	User, Chroot, Cgroup string
	Groups               []string // nil for those of the user
	Umask, CPUs          string
	Nice                 int
	Limits               []string
	NoNewPrivs           bool

	PIDFile, StatusFile, Control, Journal string

	output.Options
	Daemonize, KillAll bool
}

// The defaults of flags.
const (
	DefaultReady   = "alive:1s"
	DefaultBackoff = "0,1s,2s,4s,8s,16s,32s,60s"
	DefaultStop    = 30 * time.Second
	DefaultReadyIn = 60 * time.Second
	// DefaultAutoRestart is that of start_server, in seconds.
	DefaultAutoRestart = "360"
)

// A plan is what checked Options ask for.
type plan struct {
	Options
	config  prefork.Config
	addrs   []address
	ready   ready
	starter bool
	systemd bool

	dirSet, dirUnset []string // variables of --envdir, as last read
}

// A UsageError is an error of the flags.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// plan checks the options.
func (o Options) plan() (*plan, error) {
	p := &plan{Options: o}
	for _, step := range []func() error{p.checkProgram, p.resources, p.sockets, p.signals, p.readiness, p.pacing, p.environment, p.log} {
		if err := step(); err != nil {
			return nil, &UsageError{err}
		}
	}
	return p, nil
}

func (p *plan) checkProgram() error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return fmt.Errorf("there is no program to run: prefork run [flags] -- program args")
	}
	if p.Workers < 1 {
		return fmt.Errorf("-n %d: it must be at least 1", p.Workers)
	}
	if p.Surge < 1 {
		return fmt.Errorf("--surge %d: it must be at least 1", p.Surge)
	}
	if p.Name == "" {
		p.Name = filepath.Base(p.Args[0])
	}
	p.config = prefork.Config{Name: p.Name, Command: p.Args, MaxWorkers: p.Workers, MaxSurge: p.Surge, Dir: p.Dir, ReaperKills: p.KillAll}
	return nil
}

// resources leaves to New what depends on this process and its machine; see
// flagError.
func (p *plan) resources() (err error) {
	r := &p.config.Resources
	r.Chroot, r.Cgroup, r.Nice, r.Umask, r.NoNewPrivs = p.Chroot, p.Cgroup, p.Nice, p.Umask, p.NoNewPrivs
	if r.User, r.Group, err = values.User(p.User); err != nil {
		return fmt.Errorf("--user %s: %w", p.User, err)
	}
	if r.Groups = p.Groups; r.Groups != nil && r.User == "" {
		return fmt.Errorf("--groups %s: it needs --user, whose groups it replaces", strings.Join(p.Groups, ","))
	}
	if r.CPUs, err = parseCPUs(p.CPUs); err != nil {
		return err
	}
	for _, value := range p.Limits {
		l, err := values.Limit(value)
		if err != nil {
			return fmt.Errorf("--limit %s: %w", value, err)
		}
		r.Rlimits = append(r.Rlimits, l)
	}
	return nil
}

// flags are the flags behind the fields of prefork.Config that New checks.
var flags = map[string]string{
	"Resources.User": "--user", "Resources.Group": "--user", "Resources.Groups": "--groups", "Resources.Umask": "--umask", "Resources.Nice": "--nice",
	"Resources.CPUs": "--cpus", "Resources.Rlimits": "--limit", "Resources.NoNewPrivs": "--no-new-privs", "Resources.Chroot": "--chroot",
	"Resources.Cgroup": "--cgroup", "Name": "--name", "Dir": "--dir", "ReaperKills": "--kill-all",
}

// flagError makes an error of New name the flag and not the field.
func flagError(err error) error {
	bad, ok := errors.AsType[*prefork.ConfigError](err)
	if !ok || flags[bad.Field] == "" {
		return err
	}
	if bad.Field == "Resources.Group" {
		return usagef("--user: %w; give it as USER:GROUP", bad.Err)
	}
	return usagef("%s: %w", flags[bad.Field], bad.Err)
}

func (p *plan) sockets() error {
	for _, list := range []struct {
		values []string
		parse  func(string) (address, error)
	}{{p.Listen, parseListen}, {p.Port, parsePort}, {p.Path, parsePath}} {
		for _, value := range list.values {
			a, err := list.parse(value)
			if err != nil {
				return err
			}
			p.addrs = append(p.addrs, a)
		}
	}
	pass := p.Pass
	if pass == "" {
		pass = "none"
		if len(p.addrs) > 0 {
			pass = "starter"
		}
	}
	var err error
	if p.starter, p.systemd, err = parsePass(pass); err != nil {
		return err
	}
	seen := make(map[int]bool)
	for _, a := range p.addrs {
		switch {
		case !a.pinned:
			continue
		case p.systemd:
			return fmt.Errorf("=%d behind an address cannot be combined with --pass systemd, which numbers the sockets from 3", a.fd)
		case seen[a.fd]:
			return fmt.Errorf("two sockets shall have the descriptor %d", a.fd)
		}
		seen[a.fd] = true
	}
	if p.Backlog < 0 || p.Backlog > math.MaxInt32 {
		return fmt.Errorf("--backlog %d: it must be from 1 to %d", p.Backlog, math.MaxInt32)
	}
	p.config.ListenFDs, p.config.ListenStarter = p.systemd, p.starter
	return nil
}

func (p *plan) signals() error {
	c := &p.config
	stop := syscall.SIGTERM
	table := prefork.Signals{syscall.SIGHUP: {Rolling: true}}
	for _, value := range p.Trap {
		received, f, err := parseTrap(value)
		if err != nil {
			return err
		}
		if received != syscall.SIGTERM {
			table[received] = f
			continue
		}
		sent, ok := f.Signal.(syscall.Signal)
		if !ok || f.Interval != 0 {
			return fmt.Errorf("--trap %s: TERM stops the pool, so its action must be the signal that stops a worker", value)
		}
		stop = sent
	}
	for _, flag := range []struct{ name, value string }{{"--stop-signal", p.StopSignal}, {"--signal-on-term", p.SignalOnTerm}} {
		if flag.value == "" {
			continue
		}
		sent, err := values.Signal(flag.value)
		if err != nil {
			return fmt.Errorf("%s: %w", flag.name, err)
		}
		if stop != syscall.SIGTERM && stop != sent {
			return fmt.Errorf("%s %s: another flag has %v as the signal that stops a worker", flag.name, flag.value, stop)
		}
		stop = sent
	}
	if err := p.startServerHup(table); err != nil {
		return err
	}
	// In the table, TERM is trapped from New on: one that arrives while the sockets and
	// files are opened must not leave them behind.
	table[syscall.SIGTERM] = prefork.Forward{Signal: stop}
	c.StopSignal, c.TrapSignals = stop, table
	c.StopTimeout = p.StopTimeout
	if p.StopTimeout == 0 {
		c.StopTimeout = -1
	}
	if p.StopTimeout < 0 {
		return fmt.Errorf("--stop-timeout %v is negative; 0 means never", p.StopTimeout)
	}
	c.StopGroup = p.Group && !p.NoGroup
	return nil
}

// startServerHup applies start_server's options for the replacement on HUP.
func (p *plan) startServerHup(table prefork.Signals) error {
	delay := p.KillOldDelay
	if delay == "" && p.AutoRestart {
		delay = "5"
	}
	if p.SignalOnHup == "" && delay == "" {
		return nil
	}
	if f := table[syscall.SIGHUP]; !f.Rolling {
		return fmt.Errorf("--signal-on-hup and --kill-old-delay are for a rolling replacement on HUP, and --trap gives HUP another action")
	}
	f := prefork.Forward{Rolling: true}
	if p.SignalOnHup != "" {
		sent, err := values.Signal(p.SignalOnHup)
		if err != nil {
			return fmt.Errorf("--signal-on-hup: %w", err)
		}
		f.Signal = sent
	}
	if delay != "" {
		var err error
		if f.Linger, err = values.Duration(delay); err != nil {
			return fmt.Errorf("--kill-old-delay: %w", err)
		}
	}
	table[syscall.SIGHUP] = f
	return nil
}

func (p *plan) readiness() (err error) {
	value := p.Ready
	switch {
	case p.Interval != "" && value != "":
		return fmt.Errorf("--interval means --ready alive:%s, so it cannot be combined with --ready", p.Interval)
	case p.Interval != "":
		value = "alive:" + p.Interval
	case value == "":
		value = DefaultReady
	}
	if p.ready, err = parseReady(value); err != nil {
		return err
	}
	c := &p.config.Readiness
	c.After, c.FD = p.ready.after, p.ready.fd
	c.Explicit = p.ready.notify || p.ready.url != "" || p.ready.tcp != ""
	if c.FD != 0 || c.Explicit {
		c.Timeout = p.ReadyTimeout
		if c.Timeout == 0 {
			c.Timeout = -1
		}
	}
	if p.ReadyTimeout < 0 {
		return fmt.Errorf("--ready-timeout %v is negative; 0 means never", p.ReadyTimeout)
	}
	if slices.ContainsFunc(p.addrs, func(a address) bool { return a.fd != 0 && a.fd == c.FD }) {
		return fmt.Errorf("--ready fd:%d: a socket has this descriptor", c.FD)
	}
	return nil
}

func (p *plan) pacing() (err error) {
	c := &p.config
	if c.Backoff, err = values.Delays(p.Backoff); err != nil {
		return fmt.Errorf("--backoff %s: %w", p.Backoff, err)
	}
	if c.Restart, err = values.Restart(p.Restart); err != nil {
		return fmt.Errorf("--restart %s: %w", p.Restart, err)
	}
	if c.SuccessCodes, err = values.Codes(p.Success); err != nil {
		return fmt.Errorf("--success %s: %w", p.Success, err)
	}
	if c.CrashLoop, err = parseGiveUp(p.GiveUp); err != nil {
		return err
	}
	c.Recycle.MaxLifetime = p.MaxAge
	if p.MaxAge < 0 {
		return fmt.Errorf("--max-age %v is negative; 0 means never", p.MaxAge)
	}
	if p.AutoRestart {
		if p.MaxAge != 0 {
			return fmt.Errorf("--enable-auto-restart means --max-age %ss, so it cannot be combined with --max-age", p.AutoRestartInterval)
		}
		if c.Recycle.MaxLifetime, err = values.Duration(p.AutoRestartInterval); err != nil {
			return fmt.Errorf("--auto-restart-interval: %w", err)
		}
	}
	if p.MaxMemory != "" {
		if c.Recycle.MaxMemory, err = values.Size(p.MaxMemory); err != nil {
			return fmt.Errorf("--max-memory: %w", err)
		}
	}
	return nil
}

func (p *plan) environment() error {
	if err := p.readEnvDir(); err != nil {
		return fmt.Errorf("--envdir: %w", err)
	}
	if p.Dir != "" && p.Chroot == "" {
		info, err := os.Stat(p.Dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", p.Dir)
		}
		if err != nil {
			return fmt.Errorf("--dir: %w", err)
		}
	}
	return parseEnv(p.Env, p.Unset)
}

func (p *plan) log() error {
	switch {
	case p.Daemonize && (p.Log == output.Stderr || p.Log == output.None):
		return fmt.Errorf("--daemonize needs --log FILE or --log '| COMMAND', because a daemon has no terminal")
	case p.Daemonize && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()):
		return fmt.Errorf("--daemonize cannot be combined with sockets of systemd (LISTEN_FDS), which are for this process: leave it out, as systemd needs no daemon")
	case p.Daemonize && os.Getenv(starterPort) != "":
		return fmt.Errorf("--daemonize cannot be combined with sockets of start_server (%s), which end with this process", starterPort)
	case p.Daemonize && p.KillAll:
		return fmt.Errorf("--daemonize cannot be combined with --kill-all: the two processes of --kill-all would keep the terminal")
	}
	return p.Options.Options.Check()
}

// readEnvDir reads the directory of variables, if there is one. After an error the
// last ones stay.
func (p *plan) readEnvDir() error {
	if p.EnvDir == "" {
		return nil
	}
	set, unset, err := envdir.Read(p.EnvDir)
	if err == nil {
		p.dirSet, p.dirUnset = set, unset
	}
	return err
}

// variables returns the variables of a worker, and the names of those of this
// process that it does not get. With an error, those of --envdir are the last that
// could be read.
func (p *plan) variables(slot, generation int) (set, unset []string, err error) {
	err = p.readEnvDir()
	set, unset = slices.Clone(p.dirSet), slices.Clone(p.dirUnset)
	if p.CleanEnv {
		for _, kv := range os.Environ() {
			if name := nameOf(kv); !slices.Contains(protocol, name) {
				unset = append(unset, name)
			}
		}
	}
	if !p.starter {
		unset = append(unset, starterPort, starterGeneration)
	}
	return append(set, expandAll(p.Env, slot, generation)...), append(unset, p.Unset...), err
}

// The variables by which a program finds its sockets.
const (
	starterPort       = "SERVER_STARTER_PORT"
	starterGeneration = "SERVER_STARTER_GENERATION"
	listenFDNames     = "LISTEN_FDNAMES"
)

var protocol = []string{starterPort, starterGeneration, "LISTEN_FDS", "LISTEN_PID", listenFDNames}

func nameOf(kv string) string {
	for i := 1; i < len(kv); i++ {
		if kv[i] == '=' {
			return kv[:i]
		}
	}
	return kv
}
