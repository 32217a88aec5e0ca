//go:build unix

package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("streamer", streamer) }

// streamer writes to its standard output after the reader has gone.
func streamer() {
	sink, err := NewStream(os.Stdout)
	if err != nil {
		panic(err)
	}
	lost := make(chan error, 1)
	c, err := New(Config{Sink: sink, Report: func(err error) { lost <- err }})
	if err != nil {
		panic(err)
	}
	w, err := c.Open(0)
	if err != nil {
		panic(err)
	}
	w.Stdout.WriteString("x\n")
	w.Started(1)
	fmt.Fprintln(os.Stderr, "lost:", errors.Is(<-lost, ErrLost))
	fmt.Fprintln(os.Stderr, "closed:", c.Close(context.Background()))
}

// A process survives when the reader of its standard output has gone.
func TestStreamWithoutReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	p := preforktest.New(t, "streamer")
	p.Cmd.Stdout = w
	p.Start()
	p.Expect(`^lost: true$`)
	p.Expect(`^closed: capture: 2 bytes were discarded$`)
	if s := p.Wait(); !s.Success() {
		t.Error(s)
	}
}

// The caller keeps its file.
func TestStreamKeepsFile(t *testing.T) {
	preforktest.NoLeaks(t)
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sink, err := NewStream(f)
	if err != nil {
		t.Fatal(err)
	}
	sink.Write([]byte("a\n"))
	sink.Close(t.Context())
	if _, err := sink.Write([]byte("b\n")); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if _, err := f.WriteString("c\n"); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(f.Name()); string(got) != "a\nc\n" {
		t.Errorf("%q", got)
	}
}
