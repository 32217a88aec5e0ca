// Package wire encodes the messages on the socket between a manager and its
// worker, or its successor. The types below are the whole protocol. The end of
// the socket is also a signal: the other process has closed it or died.
//
// A message consists of one byte for the type, one byte for the length of the
// content, and the content.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A Message is one of the types below.
type Message interface {
	kind() byte
	body() []byte
}

// Ready is sent by a worker when it is ready, as Config.Readiness defines it. A
// successor sends it when all its workers are ready.
type Ready struct{}

// Parked is sent by a standby when it has reached Start. It then waits for a
// Promote.
type Parked struct{}

// StatusChanged is sent by a worker when its status changes while the manager
// has armed it to notify.
type StatusChanged struct{}

// Paused is sent by a worker when it waits at its checkpoint. N is the number
// of the Pause that it answers.
type Paused struct{ N int }

// Recycle is sent by a worker when it has served its maximum number of requests
// and should be replaced.
type Recycle struct{}

// Failed is sent by a successor when one of its workers has failed.
type Failed struct{ Reason string }

// TakeOver is sent to a successor that has sent Ready. The successor then owns
// everything. It is also sent to a worker that has sent AwaitTakeOver.
type TakeOver struct{}

// AwaitTakeOver is sent by a worker that waits until it is the only one of its
// slot. The answer is a TakeOver.
type AwaitTakeOver struct{}

// Accepting is sent by a worker when it accepts on a listener that has a socket
// for each slot for the first time. Socket is the index of the listener, as in
// Adopt.
type Accepting struct{ Socket int }

// AcceptFailed is sent by a worker that has no file descriptor or memory left for
// a connection.
type AcceptFailed struct{ Socket int }

// AdoptFailed is sent by a worker that did not receive the socket of an Adopt, or
// cannot accept from it.
type AdoptFailed struct{ Socket, Slot int }

// ListenerClosed is sent by a worker when it has closed a listener that has a
// socket for each slot and accepts no more connections there. Socket is the
// index of the listener, as in Adopt.
type ListenerClosed struct{ Socket int }

// SocketUnused is sent by a worker at Start for a socket that it was started
// with and has not asked for. Socket is the index of the call of the manager.
type SocketUnused struct{ Socket int }

// Shutdown is sent by a worker that asks the manager to shut the pool down. Code
// and Message describe the reason.
type Shutdown struct {
	Code    byte
	Message string
}

// NotStarted is sent by the first step of a Command that it could not execute.
// Reason is empty if the execution failed, and not a preparation for it. Errno is
// 0 for unknown.
type NotStarted struct {
	Errno  byte
	Reason string
}

// Executing is sent by the first step of a Command directly before it executes it.
// The end of the socket then means that it has, and without Executing that the
// step was killed.
type Executing struct{}

// MaxMessage is the maximum length of Shutdown.Message and NotStarted.Reason. A
// longer one is truncated.
const MaxMessage = maxBody - 1

// Stop is sent to a worker together with the stop signal. A signal can be lost
// if the program does not listen for it yet or listens for it elsewhere; a
// message cannot. Interrupt means that a person waits for the program to exit.
type Stop struct{ Interrupt bool }

// Pause tells a worker to wait at its checkpoint until a Resume. N counts the
// pauses, so that a late answer is not mistaken for the answer to the next one.
type Pause struct{ N int }

// Resume tells a worker to continue.
type Resume struct{}

// LogLevel tells a worker the level of its log, as in package log/slog.
type LogLevel struct{ Level int }

// Promote makes a standby the worker of Slot. The standby must apply Plan (see
// package resources; empty means no resources). The sockets of the slot are
// sent before it, each in an Adopt.
type Promote struct {
	Slot int
	Plan string
}

// MaxPlan is the maximum length of Promote.Plan. A longer plan is truncated.
const MaxPlan = maxBody - numberSize

// Adopt is sent to a worker with one descriptor. The worker must also accept
// from that socket until a Drop of the same Socket and Slot or until it exits.
// Socket is the index of the listener among those with a socket for each slot,
// in the order of the calls that created them. Slot is the slot that the socket
// belongs to.
type Adopt struct{ Socket, Slot int }

// Drop tells a worker that another worker serves the socket again.
type Drop struct{ Socket, Slot int }

func (Ready) kind() byte              { return 'R' }
func (Ready) body() []byte            { return nil }
func (Parked) kind() byte             { return 'K' }
func (Parked) body() []byte           { return nil }
func (StatusChanged) kind() byte      { return 'B' }
func (StatusChanged) body() []byte    { return nil }
func (Paused) kind() byte             { return 'Z' }
func (m Paused) body() []byte         { return number(m.N) }
func (Recycle) kind() byte            { return 'Q' }
func (Recycle) body() []byte          { return nil }
func (Failed) kind() byte             { return 'F' }
func (m Failed) body() []byte         { return []byte(m.Reason[:min(len(m.Reason), maxBody)]) }
func (TakeOver) kind() byte           { return 'T' }
func (TakeOver) body() []byte         { return nil }
func (AwaitTakeOver) kind() byte      { return 'W' }
func (AwaitTakeOver) body() []byte    { return nil }
func (Accepting) kind() byte          { return 'L' }
func (m Accepting) body() []byte      { return number(m.Socket) }
func (AcceptFailed) kind() byte       { return 'M' }
func (m AcceptFailed) body() []byte   { return number(m.Socket) }
func (AdoptFailed) kind() byte        { return 'N' }
func (m AdoptFailed) body() []byte    { return pair(m.Socket, m.Slot) }
func (ListenerClosed) kind() byte     { return 'C' }
func (m ListenerClosed) body() []byte { return number(m.Socket) }
func (SocketUnused) kind() byte       { return 'U' }
func (m SocketUnused) body() []byte   { return number(m.Socket) }
func (Shutdown) kind() byte           { return 'E' }
func (m Shutdown) body() []byte {
	return append([]byte{m.Code}, m.Message[:min(len(m.Message), MaxMessage)]...)
}
func (Executing) kind() byte   { return executing }
func (Executing) body() []byte { return nil }
func (NotStarted) kind() byte  { return notStarted }
func (m NotStarted) body() []byte {
	return append([]byte{m.Errno}, m.Reason[:min(len(m.Reason), MaxMessage)]...)
}
func (Stop) kind() byte { return 'S' }
func (m Stop) body() []byte {
	if m.Interrupt {
		return []byte{1}
	}
	return nil
}
func (Pause) kind() byte     { return 'H' }
func (m Pause) body() []byte { return number(m.N) }
func (Resume) kind() byte    { return 'G' }
func (Resume) body() []byte  { return nil }
func (LogLevel) kind() byte  { return 'V' }
func (m LogLevel) body() []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(int32(m.Level)))
}
func (Promote) kind() byte { return 'P' }
func (m Promote) body() []byte {
	return append(number(m.Slot), m.Plan[:min(len(m.Plan), MaxPlan)]...)
}
func (Adopt) kind() byte     { return 'A' }
func (m Adopt) body() []byte { return pair(m.Socket, m.Slot) }
func (Drop) kind() byte      { return 'D' }
func (m Drop) body() []byte  { return pair(m.Socket, m.Slot) }

// notStarted and executing are no characters of a text: a Command with a descriptor
// for its readiness can write a text to the same socket.
const (
	notStarted = 0x18
	executing  = 0x19
)

// The size of a number, which is big-endian, and of two numbers.
const (
	numberSize = 4
	pairSize   = 2 * numberSize
)

func number(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func pair(a, b int) []byte { return append(number(a), number(b)...) }

func parseNumber(body []byte) (int, error) {
	n := binary.BigEndian.Uint32(body)
	if n > math.MaxInt32 {
		return 0, fmt.Errorf("number %d is out of range", n)
	}
	return int(n), nil
}

// maxBody is the maximum length of the content.
const maxBody = math.MaxUint8

// MaxSize is the maximum length of a message.
const MaxSize = 2 + maxBody

// ErrShort is returned by Decode for an incomplete message.
var ErrShort = errors.New("message incomplete")

// Append appends the encoding of msg to buf.
func Append(buf []byte, msg Message) []byte {
	body := msg.body()
	return append(append(buf, msg.kind(), byte(len(body))), body...)
}

// Decode decodes the first message in buf and returns its length in bytes. It
// returns ErrShort if the message is incomplete. Any other error means that the
// type is unknown or the content does not fit the type. The caller should then
// ignore everything that follows.
func Decode(buf []byte) (Message, int, error) {
	if len(buf) == 0 {
		return nil, 0, ErrShort
	}
	least, most := 0, 0 // bytes of content
	switch buf[0] {
	case 'R', 'T', 'W', 'B', 'Q', 'K', 'G', executing:
	case 'S':
		most = 1
	case 'F':
		most = maxBody
	case 'E', notStarted:
		least, most = 1, maxBody
	case 'P':
		least, most = numberSize, maxBody
	case 'H', 'Z', 'C', 'U', 'L', 'M', 'V':
		least, most = numberSize, numberSize
	case 'A', 'D', 'N':
		least, most = pairSize, pairSize
	default:
		return nil, 0, fmt.Errorf("unknown message %q", buf[0])
	}
	if len(buf) < 2 {
		return nil, 0, ErrShort
	}
	size := int(buf[1])
	if size < least || size > most {
		return nil, 0, fmt.Errorf("message %q with %d bytes of content, want %d to %d", buf[0], size, least, most)
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

// decode decodes a message of a known kind from content of a valid length.
func decode(kind byte, body []byte) (Message, error) {
	switch kind {
	case 'R':
		return Ready{}, nil
	case 'S':
		if len(body) > 0 && body[0] != 1 {
			return nil, fmt.Errorf("content %d, want 1", body[0])
		}
		return Stop{Interrupt: len(body) > 0}, nil
	case 'T':
		return TakeOver{}, nil
	case 'W':
		return AwaitTakeOver{}, nil
	case 'B':
		return StatusChanged{}, nil
	case 'Q':
		return Recycle{}, nil
	case 'K':
		return Parked{}, nil
	case 'G':
		return Resume{}, nil
	case 'F':
		return Failed{Reason: string(body)}, nil
	case 'E':
		return Shutdown{Code: body[0], Message: string(body[1:])}, nil
	case executing:
		return Executing{}, nil
	case notStarted:
		return NotStarted{Errno: body[0], Reason: string(body[1:])}, nil
	case 'V':
		return LogLevel{Level: int(int32(binary.BigEndian.Uint32(body)))}, nil
	}
	n, err := parseNumber(body)
	if err != nil {
		return nil, err
	}
	switch kind {
	case 'H':
		return Pause{n}, nil
	case 'Z':
		return Paused{n}, nil
	case 'C':
		return ListenerClosed{n}, nil
	case 'L':
		return Accepting{n}, nil
	case 'M':
		return AcceptFailed{n}, nil
	case 'U':
		return SocketUnused{n}, nil
	case 'P':
		return Promote{Slot: n, Plan: string(body[numberSize:])}, nil
	}
	slot, err := parseNumber(body[numberSize:])
	if err != nil {
		return nil, err
	}
	switch kind {
	case 'A':
		return Adopt{n, slot}, nil
	case 'N':
		return AdoptFailed{n, slot}, nil
	}
	return Drop{n, slot}, nil
}
