package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Sink: newMemory(), Format: 3},
		{Sink: newMemory(), Format: -1},
		{Sink: newMemory(), MaxLine: 15},
		{Sink: newMemory(), MaxLine: -1},
		{Sink: newMemory(), MaxLine: 64<<10 + 1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// Lines that a worker writes in pieces, of any size, arrive whole.
func TestPieces(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newMemory()
	c := newCapture(t, Config{Sink: sink})
	want := ""
	for i := range 3000 {
		want += strconv.Itoa(i) + "\n"
	}
	for _, size := range []int{1, 2, 3, 5, 7, 4096, 4097, len(want)} {
		before := len(sink.String())
		w := start(t, c, 0, size)
		for rest := want; rest != ""; {
			n := min(size, len(rest))
			if size == 1 && len(rest) > 300 {
				n = len(rest) - 300 // a write of one byte is slow
			}
			w.print(rest[:n])
			rest = rest[n:]
		}
		w.exit()
		preforktest.WaitFor(t, "everything arrives", func() bool { return len(sink.String()) == before+len(want) })
		if got := sink.String()[before:]; got != want {
			t.Errorf("by %d bytes: %q", size, got)
		}
	}
	closeAll(t, c)
}

// Lines of many workers are not mixed, in either stream.
func TestManyWorkers(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newMemory()
	c := newCapture(t, Config{Sink: sink, Format: Prefix, Name: "n"})
	const workers, lines = 20, 200
	var all sync.WaitGroup
	for i := range workers {
		w := start(t, c, i, 100+i)
		for _, f := range []*os.File{w.out, w.err} {
			all.Go(func() {
				for n := range lines {
					fmt.Fprintf(f, "%d.%d.%d%s\n", i, n, f.Fd(), strings.Repeat("x", n))
				}
				f.Close()
			})
		}
	}
	all.Wait()
	closeAll(t, c)
	next := make(map[string]int)
	for line := range strings.Lines(sink.String()) {
		var pre, slot, n, fd int
		var pid int
		if _, err := fmt.Sscanf(line, "n[%d/%d] %d.%d.%d", &pre, &pid, &slot, &n, &fd); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		key := fmt.Sprint(slot, " ", fd)
		if pre != slot || pid != 100+slot || next[key] != n || !strings.HasSuffix(line, strings.Repeat("x", n)+"\n") {
			t.Fatalf("%q, want number %d", line, next[key])
		}
		next[key]++
	}
	if len(next) != 2*workers {
		t.Errorf("%d streams", len(next))
	}
	for key, n := range next {
		if n != lines {
			t.Errorf("%s: %d lines", key, n)
		}
	}
}

// While a Sink takes nothing, a worker blocks, and Tail answers with what was
// read. Later everything arrives.
func TestBlockedSink(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newGated()
	c := newCapture(t, Config{Sink: sink})
	w := start(t, c, 0, 1)
	const size = 1 << 20
	line := strings.Repeat("x", 1023) + "\n"
	written := make(chan int, size/len(line))
	go func() {
		defer close(written)
		for range size / len(line) {
			w.print(line)
			written <- len(line)
		}
		w.out.Close()
	}()
	preforktest.WaitFor(t, "the first lines are read", func() bool { return len(c.Tail(0, 100)) > 0 })
	other := start(t, c, 1, 2)
	other.print("waits\n")
	other.Ended(nil)
	total := 0
	for range 10 { // more cannot be written than the pipe and one read hold
		c.Tail(0, 100)
		c.Tail(1, 100)
		for len(written) > 0 {
			total += <-written
		}
	}
	if total >= size/2 {
		t.Errorf("%d bytes were written while the sink was blocked", total)
	}
	close(sink.gate)
	for n := range written {
		total += n
	}
	other.exit()
	w.err.Close()
	closeAll(t, c)
	if got := sink.String(); total != size || len(got) != size+len("waits\n") || strings.Count(got, line) != size/len(line) {
		t.Errorf("%d bytes written, %d arrived", total, len(got))
	}
	if got := c.Tail(0, 1000); len(got) != 64 || len(got[0].Text) != 1023 {
		t.Errorf("%d lines kept", len(got))
	}
}

// The last line of a worker is written at its end, although a child has the pipe.
// Lines of the child arrive later.
func TestChildHoldsPipe(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newMemory()
	c := newCapture(t, Config{Sink: sink, Format: Prefix})
	w := start(t, c, 0, 7)
	child, err := duplicate(w.out)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	w.print("first\nunfini")
	preforktest.WaitFor(t, "the first line arrives", func() bool { return sink.String() == "[0/7] first\n" })
	w.print("shed")
	w.exit()
	last := make(chan []Line, 2)
	w.Ended(func(l []Line) { last <- l })
	if got := texts(<-last); got != "first|unfinished" {
		t.Errorf("last lines: %q", got)
	}
	want := "[0/7] first\n[0/7] unfinished\n"
	if got := sink.String(); got != want {
		t.Errorf("got %q", got)
	}
	child.WriteString("of the child\n")
	want += "[0/7] of the child\n"
	preforktest.WaitFor(t, "the line of the child arrives", func() bool { return sink.String() == want })
	child.WriteString("end of the child")
	closeAll(t, c)
	if got := sink.String(); got != want+"[0/7] end of the child\n" {
		t.Errorf("got %q", got)
	}
	if _, err := child.WriteString("too late"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("after Close: %v", err)
	}
	if len(last) > 0 {
		t.Error("Ended has called its function twice")
	}
}

// A pipe that a child holds after the worker's end is waited for without turning
// in circles.
func TestQuietAfterEnd(t *testing.T) {
	c := newCapture(t, Config{Sink: newMemory()})
	p := &pipe{c: c}
	for i, want := range []bool{false, true, false} {
		p.ended.Store(i > 0)
		p.drained = i > 1
		if p.stirred() != want {
			t.Errorf("case %d: %t", i, !want)
		}
	}
	c.closing.Store(true)
	if !p.stirred() {
		t.Error("Close is not noticed")
	}
}

// The end of a worker and Close are noticed while nothing is written.
func TestIdlePipe(t *testing.T) {
	preforktest.NoLeaks(t)
	for range 20 {
		sink := newMemory()
		c := newCapture(t, Config{Sink: sink, MaxLine: 16})
		c.endWait = time.Hour
		w := start(t, c, 0, 1)
		w.print("first\n0123456789abcdefgh")
		preforktest.WaitFor(t, "the line is cut", func() bool { return len(c.Tail(0, 9)) == 2 })
		last := make(chan []Line, 1)
		w.Ended(func(l []Line) { last <- l })
		if got := texts(<-last); got != "first|0123456789abcdef|gh" {
			t.Errorf("last lines: %q", got)
		}
		w.print("of a child\n") // does not continue the line before
		preforktest.WaitFor(t, "the line arrives", func() bool { return strings.HasSuffix(sink.String(), "child\n") })
		running := start(t, c, 1, 2)
		running.print("x\nunfinished")
		preforktest.WaitFor(t, "the line arrives", func() bool { return len(c.Tail(1, 1)) == 1 })
		closeAll(t, c)
		if got := sink.String(); got != "first\n0123456789abcdef\n+gh\nof a child\nx\nunfinished\n" {
			t.Errorf("%q", got)
		}
		w.exit()
		running.exit()
	}
}

// A largest is a Sink that notes the size of the largest Write.
type largest struct {
	memory
	size int
}

func (l *largest) Write(p []byte) (int, error) {
	l.size = max(l.size, len(p))
	return len(p), nil
}

// Short lines, which become much longer as JSON, are written in parts.
func TestBatches(t *testing.T) {
	sink := &largest{memory: *newMemory()}
	c := newCapture(t, Config{Sink: sink, Format: JSON, Name: strings.Repeat("n", 200)})
	w := start(t, c, 0, 1)
	w.print(strings.Repeat("\n", 60_000))
	w.end()
	closeAll(t, c)
	if sink.size < batch || sink.size > batch+1000 {
		t.Errorf("%d bytes in one Write", sink.size)
	}
}

// The lines that Ended reports are those of the worker, and not of the one before
// it in the slot. Tail has both.
func TestLastLines(t *testing.T) {
	preforktest.NoLeaks(t)
	c := newCapture(t, Config{Sink: newMemory()})
	last := make(chan []Line)
	report := func(l []Line) { last <- l }
	for pid, n := range map[int]int{1: 3, 2: 50, 3: 0} {
		w := start(t, c, 0, pid)
		want := []string{}
		for i := range n {
			fmt.Fprintf(w.err, "%d.%d\n", pid, i)
			want = append(want, fmt.Sprintf("%d.%d", pid, i))
		}
		w.exit()
		w.Ended(report)
		if got := texts(<-last); got != strings.Join(want[max(0, n-10):], "|") {
			t.Errorf("process %d: %q", pid, got)
		}
	}
	got := c.Tail(0, 1000)
	if len(got) != 53 || got[0].Slot != 0 || got[0].Stream != Stderr {
		t.Errorf("%v", got)
	}
	if got := c.Tail(0, 2); len(got) != 2 {
		t.Errorf("%v", got)
	}
	for _, n := range []int{0, -1} {
		if got := c.Tail(0, n); got != nil {
			t.Errorf("%d: %v", n, got)
		}
	}
	if got := c.Tail(1, 10); got != nil {
		t.Errorf("unused slot: %v", got)
	}
	closeAll(t, c)
}

// Ended reports what was read if the Sink takes nothing.
func TestLastLinesWithBlockedSink(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := newGated()
	c := newCapture(t, Config{Sink: sink})
	c.endWait = time.Millisecond
	w := start(t, c, 0, 7)
	w.print("panic: x\n")
	preforktest.WaitFor(t, "the line is read", func() bool { return len(c.Tail(0, 1)) == 1 })
	w.exit()
	last := make(chan []Line)
	w.Ended(func(l []Line) { last <- l })
	if got := texts(<-last); got != "panic: x" {
		t.Errorf("%q", got)
	}
	close(sink.gate)
	closeAll(t, c)
}

// A flaky is a Sink that writes in part, with an error after it.
type flaky struct {
	memory
	calls int
}

func (f *flaky) Write(p []byte) (int, error) {
	f.calls++
	n := len(p)
	if f.calls%3 != 0 {
		n = f.calls % min(len(p), 7)
	}
	f.mu.Lock()
	f.buf.Write(p[:n])
	f.mu.Unlock()
	if n < len(p) || f.calls == 6 {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// Nothing is lost or written twice if a Sink fails for a while, and each failure
// is reported once.
func TestSinkFails(t *testing.T) {
	preforktest.NoLeaks(t)
	sink := &flaky{memory: *newMemory()}
	var reports []string
	c := newCapture(t, Config{Sink: sink, Report: func(err error) { reports = append(reports, fmt.Sprint(err)) }})
	want := ""
	for i := range 3 {
		line := fmt.Sprintf("line %d of three\n", i)
		want += line
		w := start(t, c, 0, 1)
		w.print(line)
		w.end()
		preforktest.WaitFor(t, "the line arrives", func() bool { return sink.String() == want })
	}
	closeAll(t, c)
	if got := sink.String(); got != want {
		t.Errorf("%q", got)
	}
	enospc := syscall.ENOSPC.Error()
	// The sixth call writes everything, and returns an error all the same.
	if got := strings.Join(reports, ", "); got != enospc+", <nil>, "+enospc+", <nil>" {
		t.Errorf("reports: %s", got)
	}
}

// If a Sink is lost, workers do not block, and Close says how much was discarded.
func TestSinkIsLost(t *testing.T) {
	preforktest.NoLeaks(t)
	r, f, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sink, err := NewStream(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	reports := make(chan error, 10)
	c := newCapture(t, Config{Sink: sink, Report: func(err error) { reports <- err }})
	w := start(t, c, 0, 1)
	w.print("arrives\n")
	buf := make([]byte, 100)
	if n, err := r.Read(buf); string(buf[:n]) != "arrives\n" {
		t.Fatal(string(buf[:n]), err)
	}
	r.Close()
	const size = 1 << 20
	line := strings.Repeat("x", 1023) + "\n"
	for range size / len(line) {
		w.print(line)
	}
	w.end()
	if err := <-reports; !errors.Is(err, ErrLost) || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("reported: %v", err)
	}
	if err := c.Close(context.Background()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(" %d bytes", size)) {
		t.Errorf("Close: %v", err)
	}
	if len(reports) > 0 {
		t.Errorf("reported again: %v", <-reports)
	}
	if got := c.Tail(0, 1000); len(got) != 64 {
		t.Errorf("%d lines kept", len(got))
	}
}

// Close returns when its context ends, although the Sink takes nothing.
func TestCloseGivesUp(t *testing.T) {
	preforktest.NoLeaks(t)
	c := newCapture(t, Config{Sink: newGated()})
	w := start(t, c, 0, 1)
	w.print("lost\n")
	w.end()
	preforktest.WaitFor(t, "the line is read", func() bool { return len(c.Tail(0, 1)) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.Close(ctx); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := c.Open(0); err == nil {
		t.Error("Open after Close")
	}
}

// Neither Cancel nor a Started after Close leaves descriptors.
func TestCancel(t *testing.T) {
	preforktest.NoLeaks(t)
	c := newCapture(t, Config{Sink: newMemory()})
	w, err := c.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	w.Cancel()
	late, err := c.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, c)
	late.Started(5)
	late.Ended(nil)
}

// Close waits for the report of an end, which may go to a journal that is closed
// next.
func TestCloseWaitsForReport(t *testing.T) {
	preforktest.NoLeaks(t)
	c := newCapture(t, Config{Sink: newMemory()})
	w := start(t, c, 0, 1)
	w.print("x")
	w.exit()
	reported := false
	w.Ended(func([]Line) { reported = true })
	closeAll(t, c)
	if !reported {
		t.Error("not reported")
	}
}
