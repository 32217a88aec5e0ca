package control

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// script is a control socket that returns one part for each read. It would
// block after the last part.
type script struct {
	parts []part
	reads int
	most  int // the longest buffer of a read
}

// part is the result of one read.
type part struct {
	data []byte
	err  error
}

func (s *script) Read(buf []byte) (int, error) {
	s.reads++
	s.most = max(s.most, len(buf))
	if len(s.parts) == 0 {
		return 0, proc.ErrWouldBlock
	}
	p := &s.parts[0]
	n := copy(buf, p.data)
	if n < len(p.data) {
		p.data = p.data[n:]
		return n, nil
	}
	err := p.err
	s.parts = s.parts[1:]
	return n, err
}

// messages encodes messages one after the other.
func messages(all ...wire.Message) (data []byte) {
	for _, msg := range all {
		data = wire.Append(data, msg)
	}
	return data
}

func repeat(msg wire.Message, n int) []byte { return bytes.Repeat(messages(msg), n) }

// errProtocol stands for any *ProtocolError in wants.
var errProtocol = errors.New("any protocol error")

func TestReader(t *testing.T) {
	long := wire.Failed{Reason: string(bytes.Repeat([]byte{'x'}, 255))}
	failed := messages(wire.Failed{Reason: "no such file"})
	for _, test := range []struct {
		name  string
		parts []part
		want  []wire.Message
		err   error // after them
		open  bool  // after that
	}{
		{"nothing", nil, nil, proc.ErrWouldBlock, true},
		{"one message", []part{{data: messages(wire.Ready{})}}, []wire.Message{wire.Ready{}}, proc.ErrWouldBlock, true},
		{"several in one read", []part{{data: messages(wire.Parked{}, wire.Ready{}, wire.Paused{N: 3})}},
			[]wire.Message{wire.Parked{}, wire.Ready{}, wire.Paused{N: 3}}, proc.ErrWouldBlock, true},
		{"one in several reads", []part{{data: failed[:1]}, {data: failed[1:5]}, {data: failed[5:]}},
			[]wire.Message{wire.Failed{Reason: "no such file"}}, proc.ErrWouldBlock, true},
		{"the longest", []part{{data: messages(long)}}, []wire.Message{long}, proc.ErrWouldBlock, true},
		{"data with would block", []part{{messages(wire.Ready{}), proc.ErrWouldBlock}}, []wire.Message{wire.Ready{}}, proc.ErrWouldBlock, true},
		{"end", []part{{nil, io.EOF}}, nil, io.EOF, false},
		{"data with the end", []part{{messages(wire.Ready{}, wire.Recycle{}), io.EOF}}, []wire.Message{wire.Ready{}, wire.Recycle{}}, io.EOF, false},
		{"part of a message before the end", []part{{data: messages(wire.Ready{})}, {failed[:3], io.EOF}}, []wire.Message{wire.Ready{}}, io.EOF, false},
		{"reset", []part{{nil, syscall.ECONNRESET}}, nil, io.EOF, false},
		{"unknown message", []part{{data: []byte("?")}}, nil, errProtocol, false},
		{"unknown message after others", []part{{data: append(messages(wire.Ready{}, wire.Parked{}), '?', 'R', 0)}},
			[]wire.Message{wire.Ready{}, wire.Parked{}}, errProtocol, false},
		{"unknown message with the end", []part{{[]byte("HTTP/1.1"), io.EOF}}, nil, errProtocol, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			src := &script{parts: test.parts}
			r := NewReader(src)
			var got []wire.Message
			msg, err := r.Next(0)
			for ; err == nil; msg, err = r.Next(0) {
				got = append(got, msg)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("messages %v, want %v", got, test.want)
			}
			var bad *ProtocolError
			if test.err == errProtocol {
				if !errors.As(err, &bad) || bad.Unwrap() == nil {
					t.Errorf("error %v, want a protocol error", err)
				}
			} else if err != test.err {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if r.Open() != test.open {
				t.Errorf("open %t, want %t", r.Open(), test.open)
			}
			if !test.open {
				reads := src.reads
				if msg, err := r.Next(time.Hour); msg != nil || err != io.EOF || src.reads != reads {
					t.Errorf("a closed Reader returns %v, %v and reads %d times", msg, err, src.reads-reads)
				}
			}
		})
	}
}

// A process that has nothing to read continues later.
func TestReaderContinues(t *testing.T) {
	src := &script{}
	r := NewReader(src)
	for i := range 3 {
		if _, err := r.Next(0); err != proc.ErrWouldBlock {
			t.Fatalf("%d: %v", i, err)
		}
		src.parts = []part{{data: messages(wire.Paused{N: i})}}
		if msg, err := r.Next(0); msg != (wire.Paused{N: i}) || err != nil {
			t.Errorf("%d: %v, %v", i, msg, err)
		}
	}
}

// budgetMessages is how many of the shortest messages a budget pays for.
const budgetMessages = budgetBytes / 2

// count reads until an error, and returns the number of messages and the error.
func count(r *Reader, now time.Duration) (n int, err error) {
	for {
		if _, err := r.Next(now); err != nil {
			return n, err
		}
		n++
	}
}

// A process that writes without end is read at the pace of its budget. All that it has
// written arrives in the end, and then its end.
func TestThrottle(t *testing.T) {
	const total = 2*budgetMessages + 100
	src := &script{parts: []part{{repeat(wire.StatusChanged{}, total), io.EOF}}}
	r := NewReader(src)
	start := 25 * time.Millisecond // the period begins with the first read
	for _, step := range []struct {
		at        time.Duration
		want      int
		err       error
		throttled bool
	}{
		{start, budgetMessages, ErrThrottled, true},
		{start, 0, ErrThrottled, true},
		{start + budgetPeriod - 1, 0, ErrThrottled, true},
		{start + budgetPeriod, budgetMessages, ErrThrottled, true},
		{start + 10*budgetPeriod, 100, io.EOF, false},
	} {
		n, err := count(&r, step.at)
		if n != step.want || err != step.err || r.Throttled() != step.throttled {
			t.Errorf("at %v: %d messages, %v, throttled %t; want %d, %v, %t", step.at, n, err, r.Throttled(), step.want, step.err, step.throttled)
		}
		if step.throttled && r.Resumes() <= step.at {
			t.Errorf("at %v: resumes at %v", step.at, r.Resumes())
		}
	}
	if src.most > wire.MaxSize {
		t.Errorf("a read of %d bytes", src.most)
	}
}

// A message that crosses the end of a budget is returned in the next period.
func TestThrottledInsideAMessage(t *testing.T) {
	data := append(repeat(wire.Ready{}, budgetMessages-1), messages(wire.Paused{N: 7})...)
	r := NewReader(&script{parts: []part{{data: data}}})
	if n, err := count(&r, 0); n != budgetMessages-1 || err != ErrThrottled {
		t.Errorf("%d messages, %v", n, err)
	}
	if msg, err := r.Next(r.Resumes()); msg != (wire.Paused{N: 7}) || err != nil {
		t.Errorf("%v, %v", msg, err)
	}
	if r.Throttled() {
		t.Error("still throttled")
	}
}

// The budget pays for the longest message at once.
func TestBudgetFitsAnyMessage(t *testing.T) {
	if budgetBytes < wire.MaxSize {
		t.Errorf("%d bytes in a period, and messages of %d", budgetBytes, wire.MaxSize)
	}
}

// A process that has exited is read whatever its budget is.
func TestRefill(t *testing.T) {
	r := NewReader(&script{parts: []part{{repeat(wire.Ready{}, budgetMessages+3), io.EOF}}})
	now := time.Second
	if n, err := count(&r, now); n != budgetMessages || err != ErrThrottled {
		t.Fatalf("%d messages, %v", n, err)
	}
	r.Refill()
	if r.Throttled() {
		t.Error("throttled after Refill")
	}
	if n, err := count(&r, now); n != 3 || err != io.EOF {
		t.Errorf("after Refill: %d messages, %v", n, err)
	}
}

// The zero Reader, of a Command, is closed. Close discards messages that have
// arrived.
func TestClosedReader(t *testing.T) {
	var zero Reader
	zero.Refill()
	if msg, err := zero.Next(0); zero.Open() || zero.Throttled() || msg != nil || err != io.EOF {
		t.Errorf("zero Reader: %v, %v, open %t", msg, err, zero.Open())
	}
	r := NewReader(&script{parts: []part{{data: repeat(wire.Ready{}, 10)}}})
	if _, err := r.Next(0); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if msg, err := r.Next(0); r.Open() || msg != nil || err != io.EOF {
		t.Errorf("after Close: %v, %v, open %t", msg, err, r.Open())
	}
}

// Messages that arrive cost no read each: one read serves all that it returned.
func TestReadsAreShared(t *testing.T) {
	src := &script{parts: []part{{data: repeat(wire.Ready{}, 100)}}}
	r := NewReader(src)
	for range 100 {
		if _, err := r.Next(0); err != nil {
			t.Fatal(err)
		}
	}
	if src.reads != 1 {
		t.Errorf("%d reads for 100 messages", src.reads)
	}
}

// docs/RELIABILITY.md and SECURITY.md rely on these bounds.
func TestConstants(t *testing.T) {
	if budgetBytes != 512 || budgetPeriod != 10*time.Millisecond {
		t.Errorf("a process may send %d bytes in %v, want 512 in 10 ms", budgetBytes, budgetPeriod)
	}
}

// A process that does not know the messages reports by a newline. All else that it
// writes is discarded, with the same budget.
func TestLineReader(t *testing.T) {
	for _, test := range []struct {
		name  string
		parts []part
		want  int // messages
		err   error
	}{
		{"nothing", nil, 0, proc.ErrWouldBlock},
		{"a newline", []part{{data: []byte("\n")}}, 1, proc.ErrWouldBlock},
		{"text", []part{{data: []byte("R\x00 ready")}}, 0, proc.ErrWouldBlock},
		{"a line in parts", []part{{data: []byte("rea")}, {data: []byte("dy")}, {data: []byte("\nmore")}}, 1, proc.ErrWouldBlock},
		{"two lines and the end", []part{{[]byte("a\nb\n"), io.EOF}}, 2, io.EOF},
		{"the end alone", []part{{[]byte("a"), io.EOF}}, 0, io.EOF},
		{"much text", []part{{data: bytes.Repeat([]byte("x"), 4*budgetBytes)}}, 0, ErrThrottled},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewLineReader(&script{parts: test.parts})
			n := 0
			for {
				msg, err := r.Next(0)
				if err != nil {
					if err != test.err || r.Open() != (err != io.EOF) || len(r.buf) > 0 {
						t.Errorf("error %v, open %t, %d bytes kept", err, r.Open(), len(r.buf))
					}
					break
				}
				if msg != (wire.Ready{}) {
					t.Errorf("message %#v", msg)
				}
				n++
			}
			if n != test.want {
				t.Errorf("%d messages, want %d", n, test.want)
			}
		})
	}
}
