// Package wire is what a manager and its worker, or its successor, say to each other on the socket between them. The list of
// types below is the whole protocol. The end of the socket says the rest: to the worker that its manager is gone, to the manager that
// the worker is.
//
// A message is one byte of type, one byte of length, and so many bytes of content.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Message is one of the types below.
type Message interface {
	kind() byte
	body() []byte
}

// Reached goes up, from worker to manager: the worker is ready, as Config.Readiness means it. From a successor: all its workers
// are.
type Reached struct{}

// Parked goes up, from a standby: it has reached Start, and waits for a Promote.
type Parked struct{}

// Bell goes up: the worker's status has changed, and the manager waits to hear of it.
type Bell struct{}

// Paused goes up: the worker has come to its checkpoint and waits there, for the Pause with this number.
type Paused struct{ N int }

// Retire goes up: the worker has served as many requests as it should, and is to be replaced.
type Retire struct{}

// Failed goes up, from a successor: one of its workers has failed, and why.
type Failed struct{ Why string }

// TakeOver goes down, to a successor that has said Reached: everything is its own now.
type TakeOver struct{}

// Closed goes up: the worker has closed a listener with a socket for each slot, and accepts nothing there any more. Socket is
// its index, as in Adopt.
type Closed struct{ Socket int }

// Stop goes down, from manager to worker, beside the stop signal: a signal can be lost on a program that has not begun
// to listen for it, or listens for it elsewhere; this cannot.
type Stop struct{}

// Pause goes down: the worker is to wait at its checkpoint until a Resume. N counts the pauses, so that the answer to one is not
// taken for that to the next.
type Pause struct{ N int }

// Resume goes down: the worker is to go on.
type Resume struct{}

// Promote goes down, to a standby: it is the worker of a slot from now on, and puts Plan into force (see package
// resources; "" for nothing). Its own sockets came before, each as an Adopt.
type Promote struct {
	Slot int
	Plan string
}

// MaxPlan is the size of the longest Plan that a Promote takes.
const MaxPlan = maxBody - numberSize

// Adopt goes down, with one descriptor beside it: the worker is to accept from that socket as well, until a Drop of the
// same name or its end. Socket is the index of the listener among those that have a socket for each slot, in the order of
// the calls that made them; Slot is the slot whose socket it is.
type Adopt struct{ Socket, Slot int }

// Drop goes down: the socket is served by another worker again.
type Drop struct{ Socket, Slot int }

func (Reached) kind() byte    { return 'R' }
func (Reached) body() []byte  { return nil }
func (Parked) kind() byte     { return 'K' }
func (Parked) body() []byte   { return nil }
func (Paused) kind() byte     { return 'Z' }
func (m Paused) body() []byte { return number(m.N) }
func (Pause) kind() byte      { return 'H' }
func (m Pause) body() []byte  { return number(m.N) }
func (Resume) kind() byte     { return 'G' }
func (Resume) body() []byte   { return nil }
func (Promote) kind() byte    { return 'P' }
func (m Promote) body() []byte {
	return append(number(m.Slot), m.Plan[:min(len(m.Plan), MaxPlan)]...)
}
func (Bell) kind() byte       { return 'B' }
func (Bell) body() []byte     { return nil }
func (Closed) kind() byte     { return 'C' }
func (m Closed) body() []byte { return number(m.Socket) }
func (Retire) kind() byte     { return 'Q' }
func (Retire) body() []byte   { return nil }
func (Failed) kind() byte     { return 'F' }
func (f Failed) body() []byte { return []byte(f.Why[:min(len(f.Why), maxBody)]) }
func (TakeOver) kind() byte   { return 'T' }
func (TakeOver) body() []byte { return nil }
func (Stop) kind() byte       { return 'S' }
func (Stop) body() []byte     { return nil }
func (Adopt) kind() byte      { return 'A' }
func (m Adopt) body() []byte  { return pair(m.Socket, m.Slot) }
func (Drop) kind() byte       { return 'D' }
func (m Drop) body() []byte   { return pair(m.Socket, m.Slot) }

// The size of a number, big-endian, and of two.
const (
	numberSize = 4
	pairSize   = 2 * numberSize
)

func number(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func pair(a, b int) []byte { return append(number(a), number(b)...) }

func unnumber(body []byte) (int, error) {
	n := binary.BigEndian.Uint32(body)
	if n > math.MaxInt32 {
		return 0, fmt.Errorf("number %d is out of range", n)
	}
	return int(n), nil
}

// maxBody is the size of the longest content.
const maxBody = math.MaxUint8

// MaxSize is the size of the longest message.
const MaxSize = 2 + maxBody

// ErrShort says that a message is not complete yet.
var ErrShort = errors.New("message incomplete")

// Append appends the encoding of msg to buf.
func Append(buf []byte, msg Message) []byte {
	body := msg.body()
	return append(append(buf, msg.kind(), byte(len(body))), body...)
}

// Decode takes the first message off buf and says how many bytes it took: 0 with ErrShort when more are needed. A
// message that this side does not know, or whose content does not fit its type, is an error; what follows it can then
// not be trusted either.
func Decode(buf []byte) (Message, int, error) {
	if len(buf) == 0 {
		return nil, 0, ErrShort
	}
	least, most := 0, 0 // bytes of content
	switch buf[0] {
	case 'R', 'S', 'T', 'B', 'Q', 'K', 'G':
	case 'F':
		most = maxBody
	case 'P':
		least, most = numberSize, maxBody
	case 'H', 'Z', 'C':
		least, most = numberSize, numberSize
	case 'A', 'D':
		least, most = pairSize, pairSize
	default:
		return nil, 0, fmt.Errorf("unknown message %q", buf[0])
	}
	if len(buf) < 2 {
		return nil, 0, ErrShort
	}
	size := int(buf[1])
	if size < least || size > most {
		return nil, 0, fmt.Errorf("message %q with %d bytes of content, which has %d to %d", buf[0], size, least, most)
	}
	if len(buf) < 2+size {
		return nil, 0, ErrShort
	}
	msg, err := decode(buf[0], buf[2:2+size])
	if err != nil {
		return nil, 0, fmt.Errorf("message %q: %w", buf[0], err)
	}
	return msg, 2 + size, nil
}

// decode makes a message of a known kind of a content of the right size.
func decode(kind byte, body []byte) (Message, error) {
	switch kind {
	case 'R':
		return Reached{}, nil
	case 'S':
		return Stop{}, nil
	case 'T':
		return TakeOver{}, nil
	case 'B':
		return Bell{}, nil
	case 'Q':
		return Retire{}, nil
	case 'K':
		return Parked{}, nil
	case 'G':
		return Resume{}, nil
	case 'F':
		return Failed{Why: string(body)}, nil
	}
	n, err := unnumber(body)
	if err != nil {
		return nil, err
	}
	switch kind {
	case 'H':
		return Pause{n}, nil
	case 'Z':
		return Paused{n}, nil
	case 'C':
		return Closed{n}, nil
	case 'P':
		return Promote{Slot: n, Plan: string(body[numberSize:])}, nil
	}
	slot, err := unnumber(body[numberSize:])
	if err != nil {
		return nil, err
	}
	if kind == 'A' {
		return Adopt{n, slot}, nil
	}
	return Drop{n, slot}, nil
}
