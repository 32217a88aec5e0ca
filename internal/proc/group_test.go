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

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("lead", leadProgram) }

// leadProgram starts a member of its group and, with the argument "leave",
// leaves the group itself. It prints each SIGTERM and exits on SIGINT, whether
// or not the member has exited. With the argument "member" it is the member.
func leadProgram() {
	if slices.Contains(os.Args, "member") {
		memberProgram()
		return
	}
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM, syscall.SIGINT)
	self, err := os.Executable()
	check(err)
	cmd := exec.Command(self, "member")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	check(cmd.Start())
	if slices.Contains(os.Args, "leave") {
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
}

// memberProgram prints each SIGTERM and exits at the end of its standard input.
func memberProgram() {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		for range terms {
			fmt.Println("member TERM")
		}
	}()
	fmt.Println("member", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
	fmt.Println("member exits")
}

// A band is a process of the program lead and its member.
type band struct {
	*child
	member int // its pid
}

func (o *owner) band(args []string, changes ...func(*Spec)) *band {
	o.t.Helper()
	changes = append([]func(*Spec){func(s *Spec) { s.Group = true }}, changes...)
	b := &band{child: o.start("lead", args, changes...)}
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

// sortedLines returns the next n lines, sorted.
func (b *band) sortedLines(n int) (lines []string) {
	b.o.t.Helper()
	for range n {
		lines = append(lines, b.line())
	}
	slices.Sort(lines)
	return lines
}

// endLead ends only the lead, and reaps it.
func (b *band) endLead() {
	b.o.t.Helper()
	if err := b.Signal(syscall.SIGINT); err != nil {
		b.o.t.Fatal(err)
	}
	b.o.await(Note{b.id, Exited})
	if status, _, ok := b.Reap(); !ok || !status.Clean() {
		b.o.t.Fatalf("the lead exited with %v, %v", status, ok)
	}
}

// waitMember waits for the member if it is a child of this process, as on
// Linux.
func (b *band) waitMember() {
	for {
		if _, err := syscall.Wait4(b.member, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// eachGroupTable runs a test with each table. leftovers is whether the table
// can signal a group without its leader.
func eachGroupTable(t *testing.T, test func(t *testing.T, o *owner, leftovers bool)) {
	eachTable(t, func(t *testing.T, o *owner) { test(t, o, groupsSupported(o.Table)) })
	for name, table := range oldTables() {
		t.Run(name, func(t *testing.T) { test(t, newOwnerOf(t, table), false) })
	}
}

func TestSignalGroup(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, leftovers bool) {
		b := o.band(nil)
		b.Signal(syscall.SIGTERM)
		b.expect("lead TERM")
		b.SignalGroup(syscall.SIGTERM)
		if got, want := b.sortedLines(2), []string{"lead TERM", "member TERM"}; !slices.Equal(got, want) {
			t.Fatalf("to the group: %q, want %q", got, want)
		}
		if b.HasLeftovers() {
			t.Error("leftovers before Reap")
		}
		b.SignalGroup(syscall.SIGKILL)
		b.expect("EOF")
		b.o.await(Note{b.id, Exited})
		if status, _, ok := b.Reap(); !ok || status.Signal != syscall.SIGKILL {
			t.Error(status, ok)
		}
		b.SignalGroup(syscall.SIGKILL) // closes the handle if the member was not waited for
		b.waitMember()
	})
}

// Leftovers receive signals, or are killed before the table waits for the
// leader.
func TestLeftovers(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, leftovers bool) {
		b := o.band(nil)
		b.endLead()
		if got := b.HasLeftovers(); got != leftovers {
			t.Fatalf("leftovers %v, want %v", got, leftovers)
		}
		if leftovers {
			testLeftovers(t, b)
		} else {
			b.expect("EOF")
			b.waitMember()
		}
		for _, sig := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL} {
			if err := b.SignalGroup(sig); err != nil {
				t.Errorf("signal %d to an empty group: %v", sig, err)
			}
		}
	})
}

func testLeftovers(t *testing.T, b *band) {
	b.SignalGroup(syscall.SIGTERM)
	b.expect("member TERM")
	if err := b.Signal(syscall.SIGKILL); err != nil { // reaches only the reaped leader
		t.Error(err)
	}
	b.in.Close()
	b.expect("member exits")
	b.expect("EOF")
	// No note announces the exit.
	for end := time.Now().Add(limit); b.HasLeftovers(); b.ReapLeftovers() {
		if time.Now().After(end) {
			t.Fatal("leftovers after the member's exit")
		}
		runtime.Gosched()
	}
	if _, err := syscall.Wait4(b.member, nil, syscall.WNOHANG, nil); runtime.GOOS == "linux" && err != syscall.ECHILD {
		t.Errorf("the orphan was not waited for: %v", err)
	}
}

func TestLeftoversKilled(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, leftovers bool) {
		b := o.band(nil)
		b.endLead()
		if err := b.SignalGroup(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if b.HasLeftovers() {
			t.Error("leftovers after SIGKILL")
		}
		b.expect("EOF")
		b.waitMember()
	})
}

// A process without a member leaves nothing, and a process without Spec.Group
// has no leftovers.
func TestNoLeftovers(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, _ bool) {
		c := o.start("exit", []string{"3"}, func(s *Spec) { s.Group = true })
		c.in.Close()
		if status := c.reap(); status.Code != 3 || c.HasLeftovers() {
			t.Errorf("%v, leftovers %v", status, c.HasLeftovers())
		}
		b := o.band(nil, func(s *Spec) { s.Group = false })
		b.SignalGroup(syscall.SIGTERM)
		b.expect("lead TERM")
		b.endLead()
		if b.HasLeftovers() {
			t.Error("leftovers without Spec.Group")
		}
		b.SignalGroup(syscall.SIGKILL)
		b.in.Close()
		b.expect("member exits")
		b.expect("EOF")
		b.waitMember()
	})
}

// A group that the process does not lead belongs to others. In the case "same"
// its leader is the process that runs the tests.
func TestGroupOfOthers(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, _ bool) {
		other := o.start("echo", nil)
		other.expect("up")
		for name, change := range map[string]func(*Spec){
			"same":  func(s *Spec) { s.SameGroup = true },
			"other": func(s *Spec) { s.Attr = &syscall.SysProcAttr{Setpgid: true, Pgid: other.Pid()} },
		} {
			c := o.start("echo", nil, change, func(s *Spec) { s.Group = true })
			c.expect("up")
			c.SignalGroup(syscall.SIGTERM)
			c.expect("TERM")
			c.SignalGroup(syscall.SIGKILL)
			if status := c.reap(); status.Signal != syscall.SIGKILL || c.HasLeftovers() {
				t.Errorf("%s: %v, leftovers %v", name, status, c.HasLeftovers())
			}
			c.SignalGroup(syscall.SIGKILL)
		}
		other.in.Close()
		other.expect("EOF")
		other.reap()
	})
}

// A session leader also leads a group.
func TestGroupOfASession(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, _ bool) {
		b := o.band(nil, func(s *Spec) { s.Attr = &syscall.SysProcAttr{Setsid: true} })
		b.SignalGroup(syscall.SIGTERM)
		if got, want := b.sortedLines(2), []string{"lead TERM", "member TERM"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		b.endLead()
		b.SignalGroup(syscall.SIGKILL)
		b.expect("EOF")
		b.waitMember()
	})
}

// A leader that has left its group receives signals alone, and its former group
// still counts as its own.
func TestLeaderLeaves(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, leftovers bool) {
		b := o.band([]string{"leave"})
		b.SignalGroup(syscall.SIGTERM)
		b.expect("lead TERM")
		b.endLead()
		if got := b.HasLeftovers(); got != leftovers {
			t.Errorf("leftovers %v, want %v", got, leftovers)
		}
		b.SignalGroup(syscall.SIGKILL)
		b.expect("EOF")
		b.waitMember()
	})
}

// Other code that waits for any child collects the leader. No other group is
// signaled.
func TestGroupAfterForeignWait(t *testing.T) {
	eachGroupTable(t, func(t *testing.T, o *owner, leftovers bool) {
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
		b.waitMember()
	})
}
