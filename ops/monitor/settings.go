//go:build unix

package monitor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/envdir"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/values"
)

// managed are the settings that a Manager reads once.
type managed struct {
	stop         syscall.Signal
	killAfter    time.Duration // of Config.StopTimeout
	group        bool
	readyFD      int
	readyTimeout time.Duration // of Config.Readiness
	backoff      []time.Duration
	success      []int
	instances    int
	resources    prefork.Resources
}

// settings are the values of the files of a service directory.
type settings struct {
	managed
	reload       syscall.Signal
	killGroup    bool // flag-timeout-killpg
	session      bool // flag-setsid
	newPIDs      bool // flag-newpidns
	down         bool
	restart      prefork.Restart
	tally        int
	finishWithin time.Duration // 0 is no limit
	lockFD       int           // 0 for none
	env, unset   []string

	problems []problem
	err      error // why it must not be started
	unread   bool  // the directory cannot be read: nothing else is known
}

// A problem is a file with bad content, or one that cannot be read.
type problem struct {
	file, content string
	err           error
}

const (
	defaultTally  = 100
	maxTally      = 4096
	maxInstances  = 1000
	defaultFinish = 5 * time.Second
	maxFile       = 64 << 10
	maxShown      = 200 // of a bad content
)

func defaults() settings {
	return settings{
		managed: managed{
			stop: syscall.SIGTERM, killAfter: -1, readyTimeout: -1, instances: 1,
			backoff: []time.Duration{0, time.Second},
		},
		reload: syscall.SIGHUP, tally: defaultTally, finishWithin: defaultFinish,
	}
}

// A file is one of a service directory with a value. A strict one has no default
// with which the service could run instead: it would have more rights than it
// should have, or run twice.
type file struct {
	name   string
	strict bool
	set    func(s *settings, text string) error
}

// files are in the order in which they are read: of two that set the same, the
// latter counts.
var files = []file{
	{"timeout-finish", false, func(s *settings, text string) (err error) {
		s.finishWithin, err = millis(text)
		return err
	}},
	{"timeout-kill", false, func(s *settings, text string) error { return limit(&s.killAfter, text) }},
	{"timeout-up", false, func(s *settings, text string) error { return limit(&s.readyTimeout, text) }},
	{"timeout-ready", false, func(s *settings, text string) error { return limit(&s.readyTimeout, text) }},
	{"notification-fd", false, func(s *settings, text string) error { return descriptor(&s.readyFD, text) }},
	{"lock-fd", true, func(s *settings, text string) error { return descriptor(&s.lockFD, text) }},
	{"down-signal", false, func(s *settings, text string) error {
		err := signal(&s.stop, text)
		if err == nil && s.stop != syscall.SIGKILL && sig.Untrappable(s.stop) != "" {
			err = errors.New("it is not a signal that asks a process to end; use timeout-kill")
		}
		return err
	}},
	{"reload-signal", false, func(s *settings, text string) error { return signal(&s.reload, text) }},
	{"max-death-tally", false, func(s *settings, text string) error { return number(&s.tally, text, 0, maxTally) }},
	{"instances", false, func(s *settings, text string) error { return number(&s.instances, text, 1, maxInstances) }},
	{"nice", false, func(s *settings, text string) error { return number(&s.resources.Nice, text, -20, 19) }},
	{"backoff", false, func(s *settings, text string) error { return parsed(&s.backoff, text, values.Delays) }},
	{"restart", false, func(s *settings, text string) error { return parsed(&s.restart, text, values.Restart) }},
	{"success", false, func(s *settings, text string) error { return parsed(&s.success, text, values.Codes) }},
	{"user", true, (*settings).setUser},
	{"limits", true, (*settings).setLimits},
	{"umask", true, func(s *settings, text string) error {
		s.resources.Umask = text
		return nonEmpty(text)
	}},
	{"chroot", true, func(s *settings, text string) error {
		s.resources.Chroot = text
		return nonEmpty(text)
	}},
}

// read reads the files of a service directory.
func read(dir string) settings {
	s := defaults()
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.err, s.unread = err, true
		return s
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, f := range files {
		if names[f.name] {
			s.load(dir, f)
		}
	}
	s.down, s.session, s.newPIDs = names["down"], names["flag-setsid"], names["flag-newpidns"]
	s.group, s.killGroup = names["flag-group"], names["flag-timeout-killpg"]
	if s.lockFD != 0 && s.lockFD == s.readyFD {
		s.err = fmt.Errorf("lock-fd: %d: notification-fd has the same number", s.lockFD)
	}
	if names["env"] && s.err == nil {
		if s.env, s.unset, s.err = envdir.Read(filepath.Join(dir, "env")); s.err != nil {
			s.err = fmt.Errorf("env: %w", s.err)
		}
	}
	return s
}

func (s *settings) load(dir string, f file) {
	text, err := readFile(filepath.Join(dir, f.name))
	was := *s
	if err == nil {
		err = f.set(s, text)
	}
	if err == nil {
		return
	}
	if len(text) > maxShown {
		text = text[:maxShown] + "..."
	}
	switch {
	case !f.strict:
		*s = was
		s.problems = append(s.problems, problem{f.name, text, err})
	case text == "":
		s.err = fmt.Errorf("%s: %w", f.name, err)
	default:
		s.err = fmt.Errorf("%s: %q: %w", f.name, text, err)
	}
}

// readFile returns the content of a regular file without white space around it.
// Anything else could keep the reader waiting, and a part of a file could mean
// something else.
func readFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is longer than %d bytes", maxFile)}
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

func nonEmpty(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	return nil
}

func parsed[T any](dst *T, text string, parse func(string) (T, error)) error {
	v, err := parse(text)
	*dst = v
	return err
}

func signal(dst *syscall.Signal, text string) error { return parsed(dst, text, values.Signal) }

func number(dst *int, text string, least, most int) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return fmt.Errorf("it is not a number from %d to %d", least, most)
	}
	*dst = n
	return nil
}

// descriptor parses the number of a descriptor above the standard streams.
func descriptor(dst *int, text string) error { return number(dst, text, 3, 1<<16) }

// maxMillis is a time that a Duration can still have, some 24 days.
const maxMillis = 1<<31 - 1

// millis parses milliseconds.
func millis(text string) (time.Duration, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("it is not a number of milliseconds from 0 to %d", maxMillis)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// limit parses milliseconds of which 0 means no limit.
func limit(dst *time.Duration, text string) error {
	d, err := millis(text)
	if *dst = d; d == 0 {
		*dst = -1
	}
	return err
}

// setUser parses USER, USER:GROUP:GROUP or :UID:GID:GID, as chpst -u. Without
// groups it is the user's own group alone.
func (s *settings) setUser(text string) error {
	names := strings.Split(text, ":")
	if names[0] == "" {
		names = names[1:]
		if len(names) < 2 {
			return errors.New("give numbers as :UID:GID")
		}
	}
	for _, name := range names {
		if name == "" {
			return errors.New("give it as USER, USER:GROUP:GROUP or :UID:GID")
		}
	}
	r := &s.resources
	r.User, r.Groups = names[0], []string{}
	if len(names) > 1 {
		r.Group, r.Groups = names[1], names[2:]
	}
	return nil
}

// setLimits parses a limit from each line.
func (s *settings) setLimits(text string) error {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		l, err := values.Limit(line)
		if err != nil {
			return err
		}
		s.resources.Rlimits = append(s.resources.Rlimits, l)
	}
	return nil
}

// isThere reports whether there is a file, or a link.
func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// isExecutable reports whether a path leads to a file that can be executed. There is
// an error if that is unknown.
func isExecutable(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0, err
}
