//go:build unix

package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// member tells of each SIGTERM, and ends with its standard input.
var memberProgram = program("member", func([]string) {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		for range terms {
			fmt.Println("member TERM")
		}
	}()
	fmt.Println("member", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
	fmt.Println("member ends")
})

// lead starts a member of its group, leaves the group itself if it is told to, tells of each SIGTERM, and ends by SIGINT
// at the latest, without a care for the member.
var leadProgram = program("lead", func(args []string) {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM, syscall.SIGINT)
	self, err := os.Executable()
	check(err)
	cmd := exec.Command(self)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = programEnv(memberProgram), os.Stdin, os.Stdout, os.Stderr
	check(cmd.Start())
	if slices.Contains(args, "leave") {
		pgid, err := unix.Getpgid(os.Getppid())
		check(err)
		check(unix.Setpgid(0, pgid))
	}
	fmt.Println("lead")
	for sig := range terms {
		if sig == syscall.SIGINT {
			return
		}
		fmt.Println("lead TERM")
	}
})

// A band is a lead with its member.
type band struct {
	*child
	member int // its pid
}

func (o *owner) band(args []string, changes ...func(*Spec)) *band {
	o.t.Helper()
	programEnv(memberProgram) // so that it counts as used
	changes = append([]func(*Spec){func(s *Spec) { s.Group = true }}, changes...)
	b := &band{child: o.start(leadProgram, args, changes...)}
	for range 2 {
		line := b.line()
		if pid, ok := strings.CutPrefix(line, "member "); ok {
			b.member, _ = strconv.Atoi(pid)
		} else if line != "lead" {
			o.t.Fatalf("%q", line)
		}
	}
	return b
}

// all returns the next n lines, which come in any order.
func (b *band) all(n int) (lines []string) {
	b.o.t.Helper()
	for range n {
		lines = append(lines, b.line())
	}
	slices.Sort(lines)
	return lines
}

// end ends the lead alone.
func (b *band) end() {
	b.o.t.Helper()
	if err := b.Signal(syscall.SIGINT); err != nil {
		b.o.t.Fatal(err)
	}
	b.o.await(Note{b.id, Exited})
	if status, _, ok := b.Reap(); !ok || !status.Clean() {
		b.o.t.Fatalf("the lead ended with %v, %v", status, ok)
	}
}

// wait waits for the member where this process has inherited it, as it does on Linux.
func (b *band) wait() {
	for {
		if _, err := syscall.Wait4(b.member, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// eachGroupTable runs a test with each table, and tells whether the table can signal a group without its leader.
func eachGroupTable(t *testing.T, test func(t *testing.T, o *owner, rests bool)) {
	eachTable(t, func(t *testing.T, o *owner) { test(t, o, knowsRests(o.Table)) })
	for name, table := range oldTables() {
		t.Run(name, func(t *testing.T) { test(t, newOwnerOf(t, table), false) })
	}
}

func TestSignalGroup(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, rests bool) {
		b := o.band(nil)
		b.Signal(syscall.SIGTERM)
		b.expect("lead TERM")
		b.SignalGroup(syscall.SIGTERM)
		if got, want := b.all(2), []string{"lead TERM", "member TERM"}; !slices.Equal(got, want) {
			t.Fatalf("to the group: %q, want %q", got, want)
		}
		if b.Rest() {
			t.Error("a process that was not reaped has left something")
		}
		b.SignalGroup(syscall.SIGKILL)
		b.expect("EOF")
		b.o.await(Note{b.id, Exited})
		if status, _, ok := b.Reap(); !ok || status.Signal != syscall.SIGKILL {
			t.Error(status, ok)
		}
		b.SignalGroup(syscall.SIGKILL) // closes the handle, if the member was not waited for yet
		b.wait()
	})
}

// What the leader leaves is still reached, or killed before the leader is waited for.
func TestRest(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, rests bool) {
		b := o.band(nil)
		b.end()
		if got := b.Rest(); got != rests {
			t.Fatalf("something is left: %v, want %v", got, rests)
		}
		if !rests {
			b.expect("EOF")
			b.wait()
		} else {
			b.SignalGroup(syscall.SIGTERM)
			b.expect("member TERM")
			if err := b.Signal(syscall.SIGKILL); err != nil { // nobody is there alone
				t.Error(err)
			}
			b.in.Close()
			b.expect("member ends")
			b.expect("EOF")
			for end := time.Now().Add(limit); b.Rest(); runtime.Gosched() { // and nothing tells when that is over
				if time.Now().After(end) {
					t.Fatal("the member has ended, and still something is left")
				}
			}
			if _, err := syscall.Wait4(b.member, nil, syscall.WNOHANG, nil); runtime.GOOS == "linux" && err != syscall.ECHILD {
				t.Errorf("the orphan was not waited for: %v", err)
			}
		}
		for _, sig := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL} {
			if err := b.SignalGroup(sig); err != nil {
				t.Errorf("signal %d to nobody: %v", sig, err)
			}
		}
	})
}

func TestRestKilled(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, rests bool) {
		b := o.band(nil)
		b.end()
		if err := b.SignalGroup(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if b.Rest() {
			t.Error("something is left that was killed")
		}
		b.expect("EOF")
		b.wait()
	})
}

// A process without others leaves nothing, and one that was not asked to keep its group leaves it alone.
func TestNoRest(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, _ bool) {
		c := o.start(exitProgram, []string{"3"}, func(s *Spec) { s.Group = true })
		c.in.Close()
		if status := c.reap(); status.Code != 3 || c.Rest() {
			t.Errorf("%v, and left something: %v", status, c.Rest())
		}
		b := o.band(nil, func(s *Spec) { s.Group = false })
		b.SignalGroup(syscall.SIGTERM)
		b.expect("lead TERM")
		b.end()
		if b.Rest() {
			t.Error("something is left, though nobody asked")
		}
		b.SignalGroup(syscall.SIGKILL)
		b.in.Close()
		b.expect("member ends")
		b.expect("EOF")
		b.wait()
	})
}

// A group that the process does not lead belongs to others: this process, in the case "same", which would be killed.
func TestGroupOfOthers(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, _ bool) {
		stranger := o.start(echoProgram, nil)
		stranger.expect("up")
		for name, change := range map[string]func(*Spec){
			"same":     func(s *Spec) { s.SameGroup = true },
			"stranger": func(s *Spec) { s.Attr = &syscall.SysProcAttr{Setpgid: true, Pgid: stranger.Pid()} },
		} {
			c := o.start(echoProgram, nil, change, func(s *Spec) { s.Group = true })
			c.expect("up")
			c.SignalGroup(syscall.SIGTERM)
			c.expect("TERM")
			c.SignalGroup(syscall.SIGKILL)
			if status := c.reap(); status.Signal != syscall.SIGKILL || c.Rest() {
				t.Errorf("%s: %v, left something: %v", name, status, c.Rest())
			}
			c.SignalGroup(syscall.SIGKILL)
		}
		stranger.in.Close()
		stranger.expect("EOF")
		stranger.reap()
	})
}

// A leader of a session leads a group, too.
func TestGroupOfASession(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, _ bool) {
		b := o.band(nil, func(s *Spec) { s.Attr = &syscall.SysProcAttr{Setsid: true} })
		b.SignalGroup(syscall.SIGTERM)
		if got, want := b.all(2), []string{"lead TERM", "member TERM"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		b.end()
		b.SignalGroup(syscall.SIGKILL)
		b.expect("EOF")
		b.wait()
	})
}

// One that leads a group no more gets its signals alone, and the group that it has left is still its own.
func TestLeaderLeaves(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, rests bool) {
		b := o.band([]string{"leave"})
		b.SignalGroup(syscall.SIGTERM)
		b.expect("lead TERM")
		b.end()
		if got := b.Rest(); got != rests {
			t.Errorf("something is left: %v, want %v", got, rests)
		}
		b.SignalGroup(syscall.SIGKILL)
		b.expect("EOF")
		b.wait()
	})
}

// Other code that waits for any child takes the leader now and then: nobody is hurt by that.
func TestGroupOfAStolenLeader(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, rests bool) {
		b := o.band(nil)
		b.Signal(syscall.SIGINT)
		for err := syscall.EINTR; errors.Is(err, syscall.EINTR); {
			_, err2 := syscall.Wait4(b.Pid(), nil, 0, nil)
			err, _ = err2.(syscall.Errno)
		}
		b.o.await(Note{b.id, Exited})
		if _, _, ok := b.Reap(); !ok {
			t.Error("not reaped")
		}
		b.SignalGroup(syscall.SIGKILL)
		b.in.Close()
		for b.line() != "EOF" {
		}
		b.wait()
	})
}
