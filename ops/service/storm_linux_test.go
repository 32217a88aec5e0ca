package service_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("storm", storm)
	preforktest.Register("contender", contender)
}

// contender runs the service again and again until its standard input ends. While
// it works it holds a lock on the file of its second argument, which has nothing
// to do with the service.
func contender() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	witness, err := os.Open(os.Args[2])
	if err != nil {
		report("error: %v", err)
	}
	s := programService()
	s.LockTimeout = -1
	s.Logger = slog.New(slog.DiscardHandler)
	for ctx.Err() == nil {
		l, err := s.Begin(ctx)
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the flag is set, or the directory missing
			continue
		}
		if err := syscall.Flock(int(witness.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			report("error: process %d is the second at work", os.Getpid())
		}
		report("begin %d", os.Getpid())
		<-l.Context().Done()
		report("end %d: %v", os.Getpid(), context.Cause(l.Context()))
		syscall.Flock(int(witness.Fd()), syscall.LOCK_UN)
		l.Close()
	}
}

// storm starts as many contenders as its second argument says, and for as many
// rounds as its third one says, it disturbs them, sets the stopped flag, and
// measures how long the process at work takes to obey.
func storm() {
	n, _ := strconv.Atoi(os.Args[2])
	rounds, _ := strconv.Atoi(os.Args[3])
	top := os.Args[1]
	mayMount := os.Geteuid() == 0 && syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") == nil
	p := places{top: top}
	if err := p.make(); err != nil {
		report("error: %v", err)
		return
	}
	s, err := service.New("test", p.dir())
	if err != nil {
		report("error: %v", err)
		return
	}
	lines, stop := startContenders(n, p.dir(), filepath.Join(top, "witness"))
	defer stop()
	expect := func(prefix string) bool {
		line, ok := <-lines
		if !ok || !strings.HasPrefix(line, prefix) {
			report("error: %q instead of %q", line, prefix)
		}
		return ok
	}
	kinds := []disturbance{
		{"link switched", p.switchLink}, {"parent renamed", p.renameParent},
		{"mounted over", p.mount},
		{"pid file overwritten", func() error {
			return errors.Join(p.show(), os.WriteFile(s.PIDFile, []byte("1\n"), 0o644))
		}},
		{"pid file removed", func() error { return errors.Join(p.show(), os.Remove(s.PIDFile)) }},
		{"flag unreadable", p.hide},
		{"unmounted", p.unmount},
	}
	if !mayMount {
		kinds = slices.DeleteFunc(kinds, func(d disturbance) bool { return strings.Contains(d.name, "mounted") })
	}
	var slowest time.Duration
	for i := range rounds {
		if !expect("begin ") {
			return
		}
		var done []string
		for j := range 2 {
			k := kinds[(2*i+j)%len(kinds)]
			if err := k.do(); err != nil && !errors.Is(err, os.ErrNotExist) {
				report("error: %s: %v", k.name, err)
			}
			done = append(done, k.name)
			time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		}
		if err := errors.Join(p.show(), s.Stop()); err != nil {
			report("error: %v", err)
		}
		from := time.Now()
		if !expect("end ") {
			return
		}
		took := time.Since(from)
		slowest = max(slowest, took)
		report("round %d: %v: obeyed after %v", i, done, took.Round(time.Millisecond))
		if _, err := s.Start(); err != nil {
			report("error: %v", err)
		}
	}
	expect("begin ")
	if mayMount {
		p.unmount()
	}
	report("slowest %d ms", slowest.Milliseconds())
}

type disturbance struct {
	name string
	do   func() error
}

// startContenders starts n contenders. stop ends them and waits for them.
func startContenders(n int, dir, witness string) (lines <-chan string, stop func()) {
	if err := os.WriteFile(witness, nil, 0o644); err != nil {
		report("error: %v", err)
	}
	r, w, err := os.Pipe()
	stdin, closeStdin, err2 := os.Pipe()
	if err := errors.Join(err, err2); err != nil {
		report("error: %v", err)
	}
	var all []*exec.Cmd
	for range n {
		cmd := exec.Command("/proc/self/exe", dir, witness)
		cmd.Env = append(os.Environ(), "PREFORKTEST_PROGRAM=contender")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, w, w
		if err := cmd.Start(); err != nil {
			report("error: %v", err)
			continue
		}
		all = append(all, cmd)
	}
	w.Close()
	stdin.Close()
	c := make(chan string, 100)
	go func() {
		defer close(c)
		for in := bufio.NewScanner(r); in.Scan(); {
			if strings.HasPrefix(in.Text(), "error") {
				report("%s", in.Text())
			} else {
				c <- in.Text()
			}
		}
	}()
	return c, func() {
		closeStdin.Close()
		for _, cmd := range all {
			cmd.Wait()
		}
	}
}

// places are directories in which the one of a service can be replaced. The path
// of the service is parent/link.
type places struct {
	top    string
	hidden string // the target of the link while it is hidden
	mounts int
}

func (p *places) dir() string { return filepath.Join(p.top, "parent", "link") }

func (p *places) make() (err error) {
	for _, parent := range []string{"parent", "other"} {
		for _, dir := range []string{"a", "b"} {
			err = errors.Join(err, os.MkdirAll(filepath.Join(p.top, parent, dir), 0o755))
		}
		err = errors.Join(err, os.Symlink("a", filepath.Join(p.top, parent, "link")))
	}
	return err
}

// link makes the link lead to a directory.
func (p *places) link(to string) error {
	next := p.dir() + ".next"
	return errors.Join(os.Symlink(to, next), os.Rename(next, p.dir()))
}

func (p *places) switchLink() error {
	if p.hidden != "" {
		return nil
	}
	to, err := os.Readlink(p.dir())
	if err != nil {
		return err
	}
	return p.link(map[string]string{"a": "b", "b": "a"}[to])
}

func (p *places) renameParent() error {
	if err := p.show(); err != nil {
		return err
	}
	parent, other, old := filepath.Join(p.top, "parent"), filepath.Join(p.top, "other"), filepath.Join(p.top, "old")
	return errors.Join(os.Rename(parent, old), os.Rename(other, parent), os.Rename(old, other))
}

// hide makes the link lead to itself, so that the flags cannot be examined.
func (p *places) hide() (err error) {
	if p.hidden == "" {
		if p.hidden, err = os.Readlink(p.dir()); err == nil {
			err = p.link("link")
		}
	}
	return err
}

func (p *places) show() error {
	to := p.hidden
	if p.hidden = ""; to == "" {
		return nil
	}
	return p.link(to)
}

func (p *places) mount() error {
	if err := p.show(); err != nil || p.mounts > 0 {
		return err
	}
	p.mounts++
	return syscall.Mount("tmpfs", filepath.Join(p.top, "parent", "a"), "tmpfs", 0, "size=1m,mode=755")
}

func (p *places) unmount() error {
	if p.mounts == 0 {
		return nil
	}
	p.mounts--
	err := syscall.Unmount(filepath.Join(p.top, "parent", "a"), syscall.MNT_DETACH)
	if err != nil { // the parent was renamed
		err = syscall.Unmount(filepath.Join(p.top, "other", "a"), syscall.MNT_DETACH)
	}
	return err
}

// However the directory and the files are changed, one process is at work, and
// obeys the flag at the path within a second. With -long there are 50 processes.
func TestStorm(t *testing.T) {
	n, rounds, limit := 6, 4, 10*time.Second
	if *long {
		n, rounds, limit = 50, 100, time.Second
	}
	p := preforktest.New(t, "storm", t.TempDir(), strconv.Itoa(n), strconv.Itoa(rounds))
	preforktest.New(t, "contender") // started by storm
	if os.Geteuid() == 0 {
		needPIDNamespace(t)
		p.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
	p.Start()
	slowest := time.Duration(0)
	for {
		line := p.Expect(`^(error: .*|round .*|slowest (\d+) ms)$`)
		if line[2] != "" {
			ms, _ := strconv.Atoi(line[2])
			slowest = time.Duration(ms) * time.Millisecond
			break
		}
		if strings.HasPrefix(line[1], "error") {
			t.Error(line[1])
		} else {
			t.Log(line[1])
		}
	}
	if slowest > limit {
		t.Errorf("a flag was obeyed after %v", slowest)
	}
	t.Logf("%d processes, %d rounds: a flag was obeyed within %v", n, rounds, slowest)
	p.WaitGone()
}
