package logger

import (
	"bufio"
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/testprog"
)

const times = 10 // that a logger ends under a writer at full speed

// write writes numbered lines, each by one call, and sends to progress each time
// that another part of them is written.
func (p *pipe) write(lines int, progress chan<- struct{}) {
	defer close(progress)
	fd, part := int(p.w.Fd()), lines/(times+1)+1
	var buf []byte
	for i := range lines {
		if i > 0 && i%part == 0 {
			progress <- struct{}{}
		}
		buf = append(buf[:0], numbered(i)...)
		for {
			if n, err := syscall.Write(fd, buf); err == nil && n == len(buf) {
				break
			} else if err != syscall.EINTR {
				panic(fmt.Sprint("write: ", n, err))
			}
		}
	}
	p.w.Close()
}

// numbered returns line i.
func numbered(i int) string {
	return strconv.Itoa(i) + " " + "a line of a program that writes as fast as it can\n"[i%40:]
}

// lines is how many lines a test writes.
func lines() int {
	if testprog.Long() {
		return 10_000_000
	}
	return 40_000
}

// A logger that is killed while a program writes at full speed, and started again
// on the same pipe, loses no line. Without stamps it doubles and tears none.
func TestKilled(t *testing.T) {
	for _, stamp := range []string{"", "-ttt", "-z"} {
		t.Run("stamp "+stamp, func(t *testing.T) {
			dir := t.TempDir()
			args := strings.Fields("-s 200000 -n 0 " + stamp + " " + dir)
			p := newPipe(t)
			progress := make(chan struct{}, times)
			go p.write(lines(), progress)
			l := p.start("log", args...)
			for range progress {
				l.Kill()
				if state := l.Wait(); state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatal(state)
				}
				l = p.start("log", args...)
			}
			expectStatus(t, l, 0)
			c := count(t, dir, stamp == "-ttt")
			t.Logf("%d lines of %d; %d repeated, %d torn, %d restarts", c.lines, lines(), c.repeated, c.torn, c.restarts)
			if stamp != "-ttt" && c.repeated+c.torn+c.restarts > 0 || c.lines != lines() || c.restarts > times || c.torn > c.restarts {
				t.Error("see above")
			}
		})
	}
}

// A logger that gets SIGTERM while a program writes at full speed writes what the
// pipe has, and the next goes on: no line is missing, doubled or torn.
func TestTermAtFullSpeed(t *testing.T) {
	for _, stamp := range []string{"", "-t"} {
		t.Run("stamp "+stamp, func(t *testing.T) {
			dir := t.TempDir()
			args := strings.Fields("-s 200000 -n 0 " + stamp + " " + dir)
			p := newPipe(t)
			progress := make(chan struct{}, times)
			go p.write(lines(), progress)
			l := p.start("log", args...)
			for range progress {
				l.Signal(syscall.SIGTERM)
				state := l.Wait()
				if sig := state.Sys().(syscall.WaitStatus); sig.Signaled() && sig.Signal() == syscall.SIGTERM {
					t.Log("ended before it has trapped the signal")
				} else if state.ExitCode() != 0 {
					t.Fatalf("%v: %v", state, l.Lines())
				} else if mode := mode(t, filepath.Join(dir, "current")); mode&0o100 == 0 {
					t.Fatalf("current has mode %v", mode)
				}
				l = p.start("log", args...)
			}
			expectStatus(t, l, 0)
			c := count(t, dir, stamp != "")
			if c != (counts{lines: lines()}) {
				t.Errorf("%+v", c)
			}
			for _, name := range rotated(dir) {
				if !strings.HasSuffix(name, ".s") {
					t.Errorf("%s after clean ends", name)
				}
			}
		})
	}
}

type counts struct{ lines, repeated, torn, restarts int }

// count reads the lines that write has written, and fails the test if one is
// missing, or repeated without a mark before.
func count(t *testing.T, dir string, stamped bool) (c counts) {
	t.Helper()
	next, again := 0, false // again: a mark came, and no line after it
	torn := ""
	line := func(text string) {
		if stamped {
			stamp, rest, ok := strings.Cut(text, " ")
			if !ok || len(stamp) < 25 {
				torn = text
				return
			}
			text = rest
			if text == "-- restarted --" {
				if c.restarts++; torn != "" {
					c.torn, torn = c.torn+1, ""
				}
				again = true
				return
			}
		}
		number, _, _ := strings.Cut(text, " ")
		i, err := strconv.Atoi(number)
		if err != nil || text+"\n" != numbered(i) {
			if torn == "" && stamped {
				torn = text
				return
			}
			t.Fatalf("torn: %q, after %d", text, next-1)
		}
		switch {
		case torn != "":
			t.Fatalf("torn: %q", torn)
		case i == next:
			next++
		case i < next && again && (next-i)*3 <= chunk:
			c.repeated += next - i
			next = i + 1
		default:
			t.Fatalf("line %d after %d", i, next-1)
		}
		again = false
	}
	pending := ""
	for _, name := range files(dir) {
		content, err := readLog(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewReader(bytes.NewReader(content)); ; {
			text, err := s.ReadString('\n')
			if err != nil {
				pending += text
				break
			}
			line(strings.TrimSuffix(pending+text, "\n"))
			pending = ""
		}
		if pending != "" {
			t.Fatalf("%s ends within a line: %q", name, pending)
		}
	}
	c.lines = next
	return c
}
