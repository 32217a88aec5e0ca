// Package capture takes what worker programs write to stdout and stderr, and
// writes it on by whole lines: to the manager's own streams, to the standard
// input of a command, or to a file (package logfile). Each line can get a prefix,
// or become an object of JSON. Use it for programs that do not write log files
// of their own.
//
// Nothing is dropped. If a Sink takes no lines, because a disk is full or a
// command reads slowly, the pipes fill up and the programs wait in their next
// write. The memory of this process does not grow then, and Tail answers at
// once.
//
// A line ends at a newline, or after Config.MaxLine bytes. The rest of a longer
// line follows as a line marked with "+". A last line without a newline is
// written when its worker has ended.
//
// The package starts one goroutine for each pipe, and links nothing that takes
// time when a process starts.
package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Format is the form in which lines are written.
type Format int

const (
	Plain  Format = iota // the line as it is
	Prefix               // after "NAME[slot/pid] "
	JSON                 // an object with time, name, slot, pid, stream, and line or raw
)

// A Stream is one of the two streams of a worker.
type Stream int

const (
	Stdout Stream = iota + 1
	Stderr
)

func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return fmt.Sprintf("stream %d", int(s))
}

// Config configures a Capture.
type Config struct {
	// Sink takes the lines. It is required, and belongs to the Capture, whose
	// Close closes it.
	Sink Sink

	// Format is Plain, Prefix or JSON.
	Format Format

	// Name is the name in a prefix or a JSON object, except of workers of OpenAs.
	Name string

	// MaxLine is the maximum number of bytes in a line. Zero means 8 KiB; the
	// limits are 16 bytes and 64 KiB.
	MaxLine int

	// Report, if not nil, is called with an error when the Sink stops taking
	// lines, and with nil when it takes lines again. It is called by one
	// goroutine at a time, and delays all lines until it returns.
	Report func(error)
}

const (
	defaultMaxLine = 8 << 10
	minMaxLine     = 16
	chunk          = 32 << 10 // bytes in one read
	batch          = 64 << 10 // bytes after which lines are written
)

// A Sink writes lines.
type Sink interface {
	// Write writes p, which consists of whole lines, or of the rest of lines
	// that an earlier call has written in part. It may block. If n is less than
	// len(p), err is not nil, and Write is called again with the rest after a
	// delay. An error that wraps ErrLost means that all later calls would fail.
	// An error with n equal to len(p) is only reported. Calls do not overlap.
	Write(p []byte) (n int, err error)

	// Close releases the Sink, and waits until a program behind it has taken
	// everything. If ctx ends first, Close returns an error, and so does a
	// Write that blocks: Close is called during a Write only after ctx has
	// ended.
	Close(ctx context.Context) error
}

// ErrLost is wrapped by the error of a Sink that will never take lines again, such
// as a stream whose reader has gone. The Capture then discards lines, because the
// workers would otherwise block forever.
var ErrLost = errors.New("the log is lost")

// A Capture writes the lines of all workers of one or several pools to one Sink. Its methods
// are safe for concurrent use. Except for Close, none of them waits for the Sink.
type Capture struct {
	cfg Config

	// mu is held while lines are read, formatted and written, so that there is
	// one buffer, however many workers are waiting for the Sink.
	mu      sync.Mutex
	in, out []byte
	stamp   []byte // time of the lines, for JSON
	failing bool   // the last Write returned an error
	lost    bool   // the Sink returned ErrLost

	endWait   time.Duration
	discarded atomic.Int64
	closing   atomic.Bool   // drain the pipes, then close them
	aborted   chan struct{} // closed when the context of Close has ended
	running   sync.WaitGroup

	smu    sync.Mutex
	tails  map[place]*tail
	pipes  map[*pipe]struct{}
	closed bool
}

// A place is where a worker runs.
type place struct {
	name string // of its pool
	slot int
}

// New returns a Capture that writes to cfg.Sink.
func New(cfg Config) (*Capture, error) {
	switch {
	case cfg.Sink == nil:
		return nil, errors.New("capture: Config.Sink is nil")
	case cfg.Format < Plain || cfg.Format > JSON:
		return nil, fmt.Errorf("capture: unknown Config.Format %d", cfg.Format)
	case cfg.MaxLine == 0:
		cfg.MaxLine = defaultMaxLine
	case cfg.MaxLine < minMaxLine || cfg.MaxLine > maxTailBytes:
		return nil, fmt.Errorf("capture: Config.MaxLine is %d: use %d to %d bytes", cfg.MaxLine, minMaxLine, maxTailBytes)
	}
	return &Capture{
		cfg:     cfg,
		in:      make([]byte, cfg.MaxLine+chunk),
		endWait: endWait,
		aborted: make(chan struct{}),
		tails:   make(map[place]*tail),
		pipes:   make(map[*pipe]struct{}),
	}, nil
}

// Open makes the pipes of a worker that is about to be spawned in a slot. Call
// Started when it has a pid, or Cancel if it could not be spawned. Open fails
// after Close, or if the process has no descriptors left.
func (c *Capture) Open(slot int) (*Worker, error) { return c.OpenAs(c.cfg.Name, slot) }

// OpenAs is Open for a worker of a pool with a name of its own. Use it for several
// pools with one Sink: a Capture for each would need a buffer for each.
func (c *Capture) OpenAs(name string, slot int) (*Worker, error) {
	w := &Worker{name: name, slot: slot, c: c}
	for i, out := range []**os.File{&w.Stdout, &w.Stderr} {
		p, write, err := newPipe(w, Stream(i+1))
		if err != nil {
			w.Cancel()
			return nil, fmt.Errorf("capture: %w", err)
		}
		w.pipes = append(w.pipes, p)
		*out = write
	}
	c.smu.Lock()
	defer c.smu.Unlock()
	if c.closed {
		w.Cancel()
		return nil, errors.New("capture: Open was called after Close")
	}
	at := place{name, slot}
	w.tail = c.tails[at]
	if w.tail == nil {
		w.tail = &tail{name: name, slot: slot}
		c.tails[at] = w.tail
	}
	return w, nil
}

// Tail returns up to n of the last lines that were read from the workers of a
// slot, the oldest first. A Capture keeps 100 lines or 64 KiB of each slot. Tail
// does not block.
func (c *Capture) Tail(slot, n int) []Line { return c.TailOf(c.cfg.Name, slot, n) }

// TailOf is Tail for workers of OpenAs. A negative slot stands for all slots of
// that name: then it is the last lines of all of them together. It has the type of
// control.Config.Tail.
func (c *Capture) TailOf(name string, slot, n int) (lines []Line) {
	var tails []*tail
	c.smu.Lock()
	for at, t := range c.tails {
		if at.name == name && (slot < 0 || at.slot == slot) {
			tails = append(tails, t)
		}
	}
	c.smu.Unlock()
	for _, t := range tails {
		lines = append(lines, t.last(n, 0)...)
	}
	if len(tails) > 1 {
		slices.SortStableFunc(lines, func(a, b Line) int { return a.Time.Compare(b.Time) })
	}
	return lines[max(0, len(lines)-max(0, n)):]
}

// Forget drops the last lines of all workers of OpenAs with a name. Use it after the
// last worker of a pool that does not come back has ended.
func (c *Capture) Forget(name string) {
	c.smu.Lock()
	defer c.smu.Unlock()
	maps.DeleteFunc(c.tails, func(at place, _ *tail) bool { return at.name == name })
}

// Close reads what the workers have written, closes the pipes and then the Sink.
// It should be called after all workers have ended: a process that still has a
// pipe, such as a child of a worker, gets SIGPIPE when it writes again. If ctx
// ends first, lines are lost. The error has their number of bytes.
func (c *Capture) Close(ctx context.Context) error {
	c.smu.Lock()
	if c.closed {
		c.smu.Unlock()
		return nil
	}
	c.closed = true
	c.closing.Store(true)
	for p := range c.pipes {
		p.wake()
	}
	c.smu.Unlock()

	drained := make(chan struct{})
	go func() {
		c.running.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		close(c.aborted)
	}
	err := c.cfg.Sink.Close(ctx)
	select {
	case <-drained:
	case <-ctx.Done():
		err = errors.Join(fmt.Errorf("capture: not everything was written: %w", ctx.Err()), err)
	}
	if n := c.discarded.Load(); n > 0 {
		err = errors.Join(fmt.Errorf("capture: %d bytes were discarded", n), err)
	}
	return err
}

// take formats all whole lines of b, and returns the rest. The caller holds mu.
func (c *Capture) take(p *pipe, b []byte) (rest []byte) {
	for {
		line, rest, cut, ok := nextLine(b, c.cfg.MaxLine)
		if !ok {
			return b
		}
		c.line(p, line)
		p.continued = cut
		b = rest
	}
}

// line formats one line. The caller holds mu.
func (c *Capture) line(p *pipe, text []byte) {
	p.w.tail.add(entry{time: p.now, pid: p.w.pid, stream: p.stream, continued: p.continued}, text)
	c.out = c.appendLine(c.out, p, text)
	if len(c.out) >= batch {
		c.flush()
	}
}

const maxRetry = time.Second

// flush writes the formatted lines, however long it takes. The caller holds mu.
func (c *Capture) flush() {
	rest := c.out
	c.out = c.out[:0]
	for delay := 20 * time.Millisecond; len(rest) > 0 && !c.lost; delay = min(2*delay, maxRetry) {
		n, err := c.cfg.Sink.Write(rest)
		rest = rest[n:]
		c.report(err)
		if len(rest) == 0 {
			return
		}
		c.lost = errors.Is(err, ErrLost)
		select {
		case <-c.aborted:
			c.lost = true
		case <-time.After(delay):
		}
	}
	c.discarded.Add(int64(len(rest)))
}

// report calls Config.Report when the Sink begins or ceases to fail.
func (c *Capture) report(err error) {
	if failing := err != nil; failing != c.failing {
		c.failing = failing
		if c.cfg.Report != nil {
			c.cfg.Report(err)
		}
	}
}
