//go:build unix

// Package chain changes the state of this process and executes another program in
// its place, as chpst of runit and the programs of daemontools do.
package chain

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/envdir"
	"github.com/prefork-go/prefork/internal/launch"
)

// The exit status of daemontools and runit. Exits of the program have the same
// numbers.
const (
	exitUsage  = 100
	exitFailed = 111
)

// A state has the changes that Main makes before it executes the program.
type state struct {
	name    string // for messages
	program []string
	paths   []string // at which the program may be
	argv0   optional

	envDir  optional
	account optional // for UID and GID
	user    optional
	root    optional
	dir     optional

	nice       int
	limits     []limit
	session    bool
	noNewPrivs bool
	close      [3]bool
	lock       *lock
	verbose    bool
}

// Main changes this process as args ask it to, and executes the program that they
// name. It returns only if that fails, with the exit status. The first error is
// written to errs.
func Main(name string, args []string, errs io.Writer) (status int) {
	s, err := parse(name, args)
	if err != nil {
		fmt.Fprintf(errs, "%s: %v\n%s\n", name, err, Usage(name))
		return exitUsage
	}
	// The priority and the rights that are given up are those of a thread; the
	// thread that executes becomes the process. If it is not the main thread, the
	// death signal of the parent is lost; see the init of the command.
	runtime.LockOSThread()
	err = s.apply()
	var held *heldError
	switch {
	case errors.As(err, &held) && s.lock.quiet:
		return 0
	case err == nil:
		err = s.execute(errs)
	}
	fmt.Fprintf(errs, "%s: %v\n", name, err)
	return exitFailed
}

// apply changes the process, in the order of chpst. Names of users are those of
// the system, also if the program gets another root directory.
func (s *state) apply() error {
	var id, account identity
	var err error
	if s.user.given {
		if id, err = lookUp(s.user.text); err != nil {
			return err
		}
	}
	if s.account.given {
		if account, err = lookUp(s.account.text); err != nil {
			return err
		}
	}
	if s.session {
		// A process that leads its group already cannot; it keeps its session.
		if _, err := unix.Setsid(); err != nil && err != unix.EPERM {
			return os.NewSyscallError("setsid", err)
		}
	}
	if err := s.changeEnv(account); err != nil {
		return err
	}
	if err := s.changeDirs(); err != nil {
		return err
	}
	if s.nice != 0 {
		if err := changeNice(s.nice); err != nil {
			return fmt.Errorf("cannot change the priority by %d: %w", s.nice, err)
		}
	}
	if s.user.given {
		if err := id.become(); err != nil {
			return fmt.Errorf("cannot become user %s: %w", s.user.text, err)
		}
	}
	if s.lock != nil {
		if err := s.lock.take(); err != nil {
			return err
		}
	}
	if s.noNewPrivs {
		if err := setNoNewPrivs(); err != nil {
			return err
		}
	}
	for fd, closes := range s.close {
		if closes {
			unix.Close(fd)
		}
	}
	return nil
}

// changeEnv changes the environment of this process. The program is looked for in
// the PATH from before, as by chpst.
func (s *state) changeEnv(account identity) error {
	s.paths = candidates(s.program[0])
	if s.envDir.given {
		set, unset, err := envdir.Read(s.envDir.text)
		if err != nil {
			return err
		}
		for _, kv := range set {
			name, value, _ := strings.Cut(kv, "=")
			if err := os.Setenv(name, value); err != nil {
				return fmt.Errorf("%s: %w", filepath.Join(s.envDir.text, name), err)
			}
		}
		for _, name := range unset {
			os.Unsetenv(name)
		}
	}
	if s.account.given {
		os.Setenv("UID", fmt.Sprint(account.uid))
		os.Setenv("GID", fmt.Sprint(account.groups[0]))
	}
	return nil
}

func (s *state) changeDirs() error {
	if s.root.given {
		if err := os.Chdir(s.root.text); err != nil {
			return fmt.Errorf("cannot change the root directory: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("cannot change the root directory: chroot %s: %w", s.root.text, err)
		}
	}
	if s.dir.given {
		if err := os.Chdir(s.dir.text); err != nil {
			return fmt.Errorf("cannot change the directory: %w", err)
		}
	}
	return nil
}

// candidates returns the paths at which a program may be.
func candidates(program string) (paths []string) {
	if strings.Contains(program, "/") {
		return []string{program}
	}
	path, ok := os.LookupEnv("PATH")
	if !ok {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		paths = append(paths, dir+"/"+program)
	}
	return paths
}

// execute sets the limits and executes the program: the first candidate that is
// there and may be executed.
func (s *state) execute(errs io.Writer) error {
	changes, err := s.limitChanges(errs)
	if err != nil {
		return err
	}
	argv := slices.Clone(s.program)
	if s.argv0.given {
		argv[0] = s.argv0.text
	}
	path, refused, err := enter(changes, s.paths, argv, os.Environ())
	switch name := s.program[0]; {
	case path != "" || strings.Contains(name, "/"):
		return explained(cmp.Or(path, name), err)
	case refused:
		return fmt.Errorf("cannot execute %s: the files of this name in PATH may not be executed", name)
	default:
		return fmt.Errorf("cannot execute %s: PATH has no file of this name", name)
	}
}

// goesOn reports whether the next candidate is tried after an error.
func goesOn(err syscall.Errno) bool {
	return err == syscall.EACCES || err == syscall.EPERM || err == syscall.ENOENT || err == syscall.ENOTDIR
}

func explained(path string, err error) error {
	return launch.ExplainCommand("", "", &os.PathError{Op: "cannot execute", Path: path, Err: err})
}
