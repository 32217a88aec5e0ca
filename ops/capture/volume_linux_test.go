package capture

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("chatter", chatter)
	preforktest.Register("splicer", splicer)
}

// appendChatter appends line number i, of 20 to about 220 bytes, or 5,000.
func appendChatter(b []byte, i int) []byte {
	const filler = "abcdefghijklmnopqrstuvwxyz0123456789-"
	b = strconv.AppendInt(b, int64(i), 10)
	n := 18 + i*7%200
	if i%1000 == 0 {
		n = 5000
	}
	for ; n > 0; n -= len(filler) {
		b = append(b, filler[:min(n, len(filler))]...)
	}
	return append(b, '\n')
}

// chatter writes a number of bytes as fast as it can, in writes of 64 KiB, which
// end within lines.
func chatter() {
	size, _ := strconv.Atoi(os.Args[1])
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	var line []byte
	for i := 0; size > 0; i++ {
		line = appendChatter(line[:0], i)
		line = line[:min(len(line), size)]
		out.Write(line)
		size -= len(line)
	}
	out.Flush()
}

// A slow is a Sink that takes 64 KiB in a millisecond at best, and compares them
// with what chatter writes.
type slow struct {
	pid      atomic.Int64
	next     int    // number of a line
	expected []byte // of the current line
	line     []byte
	total    int64
	bad      string
	rss, max int64
	writes   int
}

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	for q := p; len(q) > 0 && s.bad == ""; {
		if len(s.expected) == 0 {
			s.line = fmt.Appendf(s.line[:0], "web[0/%d] ", s.pid.Load())
			head := len(s.line)
			s.line = appendChatter(s.line, s.next)
			s.total -= int64(head)
			s.next++
			s.expected = s.line
		}
		n := min(len(q), len(s.expected))
		// A newline is added to the last line, which is cut.
		if !bytes.Equal(q[:n], s.expected[:n]) && string(q[:n]) != string(s.expected[:n-1])+"\n" {
			s.bad = fmt.Sprintf("line %d: %q, want %q", s.next-1, q[:n], s.expected[:n])
		}
		q, s.expected = q[n:], s.expected[n:]
		s.total += int64(n)
	}
	if s.writes++; s.writes%16 == 0 {
		rss := residentMemory()
		if s.rss == 0 {
			s.rss = rss
		}
		s.max = max(s.max, rss)
	}
	return len(p), nil
}

func (s *slow) Close(context.Context) error { return nil }

func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	n, _ := strconv.ParseInt(string(f[1]), 10, 64)
	return n * int64(os.Getpagesize())
}

// A program writes 16 MiB, or 1 GiB with -long, and the sink is slow: every byte
// arrives, the memory of this process hardly grows, and commands are answered
// at the same time.
func TestVolume(t *testing.T) {
	size := int64(16 << 20)
	if testprog.Long() {
		size = 1 << 30
	}
	sink := new(slow)
	c := newCapture(t, Config{Sink: sink, Format: Prefix, Name: "web"})
	w, err := c.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, strconv.FormatInt(size, 10))
	cmd.Env = preforktest.Environ(t, "chatter")
	cmd.Stdout, cmd.Stderr = w.Stdout, w.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sink.pid.Store(int64(cmd.Process.Pid))
	w.Started(cmd.Process.Pid)
	ended := make(chan error)
	go func() {
		err := cmd.Wait()
		w.Ended(nil)
		ended <- err
	}()
	var took []time.Duration
	began := time.Now()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-time.After(time.Millisecond):
			now := time.Now()
			c.Tail(0, 100)
			took = append(took, time.Since(now))
		}
	}
	closeAll(t, c)
	if err != nil {
		t.Error(err)
	}
	if sink.bad != "" {
		t.Error(sink.bad)
	}
	if got := sink.total - size; got != 0 && got != 1 { // a newline may have been added
		t.Errorf("%d bytes arrived, want %d", sink.total, size)
	}
	slices.Sort(took)
	at := func(p int) time.Duration { return took[min(len(took)-1, len(took)*p/1000)] }
	t.Logf("%d MiB in %v; resident memory grew from %.1f MiB by %.2f MiB; %d calls of Tail: median %v, p99 %v, max %v",
		size>>20, time.Since(began), float64(sink.rss)/(1<<20), float64(sink.max-sink.rss)/(1<<20), len(took), at(500), at(990), at(1000))
	limit := int64(8 << 20)
	if testprog.Race() {
		limit = 64 << 20
	}
	if grown := sink.max - sink.rss; grown > limit {
		t.Errorf("resident memory grew by %d bytes", grown)
	}
	if at(500) > 10*time.Millisecond {
		t.Errorf("half of the calls of Tail took longer than %v", at(500))
	}
}

// splicer moves bytes from its input to a file without taking them out of the
// pipe first, so that it can be killed at any time.
func splicer() {
	f, err := os.OpenFile(os.Args[1], os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	if _, err := f.Seek(0, 2); err != nil {
		panic(err)
	}
	for {
		n, err := unix.Splice(0, nil, int(f.Fd()), nil, 64<<10, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			panic(err)
		}
		if n == 0 {
			return
		}
	}
}

// A command that is killed while it reads at full speed is started again, and
// loses nothing if it reads with care.
func TestCommandIsKilled(t *testing.T) {
	preforktest.NoLeaks(t)
	kills, between := 4, 200
	if testprog.Long() {
		kills, between = 40, 2000
	}
	file := filepath.Join(t.TempDir(), "log")
	reports := make(chan error, kills)
	sink := newTestCommand(t, func(err error) { reports <- err }, "splicer", file)
	c := newCapture(t, Config{Sink: sink})
	w := start(t, c, 0, 1)
	var want, line []byte
	n := 0
	print := func(lines int) {
		for range lines {
			line = appendChatter(line[:0], n)
			n++
			w.out.Write(line)
			want = append(want, line...)
		}
	}
	for range kills {
		print(between)
		sink.mu.Lock()
		pid := sink.process.Pid
		sink.mu.Unlock()
		syscall.Kill(pid, syscall.SIGKILL)
		print(between)
		<-reports
		preforktest.WaitFor(t, "the command runs again", func() bool {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			return sink.process != nil
		})
	}
	w.end()
	closeAll(t, c)
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d arrived: %v", len(got), len(want), err)
	}
	t.Logf("%d lines, %d kills", n, kills)
}
