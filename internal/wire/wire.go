// Package wire is what a manager and its worker say to each other on the socket between them. The list of types below is
// the whole protocol. The end of the socket says the rest: to the worker that its manager is gone, to the manager that
// the worker is.
//
// A message is one byte of type, one byte of length, and so many bytes of content.
package wire

import (
	"errors"
	"fmt"
)

// Message is one of the types below.
type Message interface {
	kind() byte
	body() []byte
}

// Reached goes up, from worker to manager: the worker is ready, as Config.Readiness means it.
type Reached struct{}

// Stop goes down, from manager to worker, beside the stop signal: a signal can be lost on a program that has not begun
// to listen for it, or listens for it elsewhere; this cannot.
type Stop struct{}

func (Reached) kind() byte   { return 'R' }
func (Reached) body() []byte { return nil }
func (Stop) kind() byte      { return 'S' }
func (Stop) body() []byte    { return nil }

// MaxSize is the size of the longest message.
const MaxSize = 2 + 255

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
	var msg Message
	switch buf[0] {
	case 'R':
		msg = Reached{}
	case 'S':
		msg = Stop{}
	default:
		return nil, 0, fmt.Errorf("unknown message %q", buf[0])
	}
	if len(buf) < 2 {
		return nil, 0, ErrShort
	}
	if buf[1] != 0 {
		return nil, 0, fmt.Errorf("message %q with %d bytes of content, which has none", buf[0], buf[1])
	}
	return msg, 2, nil
}
