package faults_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// A slackPipe is a pipe for a log, with a reader that can be stopped.
type slackPipe struct {
	t    *testing.T
	r, w *os.File
	more *os.File      // the same pipe, opened again in non-blocking mode
	gate chan struct{} // held while reading is allowed
}

func newSlackPipe(t *testing.T) *slackPipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &slackPipe{t: t, r: r, w: w, more: more, gate: make(chan struct{}, 1)}
	s.drain()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			s.gate <- <-s.gate
			if _, err := r.Read(buf); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.Close()
		more.Close()
		<-done
		r.Close()
	})
	return s
}

// fill fills the pipe and stops the reader, which may be in a Read and take one
// more buffer.
func (s *slackPipe) fill() {
	<-s.gate
	conn, err := s.more.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	for range 3 {
		conn.Control(func(fd uintptr) {
			for err := error(nil); err == nil; {
				_, err = syscall.Write(int(fd), make([]byte, 4096))
			}
		})
	}
}

func (s *slackPipe) drain() { s.gate <- struct{}{} }
