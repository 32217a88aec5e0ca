//go:build !unix

package capture

import (
	"io"
	"os"
)

// reader reads a pipe ahead by a goroutine that blocks, because the system cannot
// wait for one otherwise. A worker's end is noticed when the goroutine has nothing
// for us, which may be a moment too early.
type reader struct {
	chunks chan []byte // closed at the end of the pipe
	free   chan []byte
	stir   chan struct{}
	buf    []byte // the chunk that is being read
	unread []byte // of buf
	eof    bool
}

const ahead = 4 << 10 // bytes

func newPipe(w *Worker, stream Stream) (*pipe, *os.File, error) {
	r, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p := &pipe{w: w, c: w.c, stream: stream, r: r}
	p.stir = make(chan struct{}, 1)
	return p, write, nil
}

func (p *pipe) wait() {
	if p.chunks == nil {
		p.chunks, p.free = make(chan []byte, 1), make(chan []byte, 1)
		p.free <- make([]byte, ahead)
		go readAhead(p.r, p.chunks, p.free)
	}
	if len(p.unread) > 0 || p.eof || p.stirred() {
		return
	}
	select {
	case b, ok := <-p.chunks:
		p.got(b, ok)
	case <-p.stir:
	}
}

// readAhead has at most one buffer, so it never blocks in a channel for long.
func readAhead(r *os.File, chunks, free chan []byte) {
	defer close(chunks)
	for buf := range free {
		n, err := r.Read(buf)
		if n == 0 && err != nil {
			return
		}
		chunks <- buf[:n]
	}
}

func (p *pipe) got(b []byte, ok bool) {
	p.buf, p.unread, p.eof = b, b, !ok
}

func (p *pipe) wake() {
	select {
	case p.stir <- struct{}{}:
	default:
	}
}

func (p *pipe) read(buf []byte) (int, error) {
	if len(p.unread) == 0 && !p.eof {
		select {
		case b, ok := <-p.chunks:
			p.got(b, ok)
		default:
			return 0, errEmpty
		}
	}
	if p.eof {
		return 0, io.EOF
	}
	n := copy(buf, p.unread)
	if p.unread = p.unread[n:]; len(p.unread) == 0 {
		p.free <- p.buf[:cap(p.buf)]
	}
	return n, nil
}
