//go:build unix

package sigqueue

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	hup  = syscall.SIGHUP
	term = syscall.SIGTERM
	usr1 = syscall.SIGUSR1
)

// The shutdown signal comes first, then the others in the order of their arrival. One
// of each is kept.
func TestQueue(t *testing.T) {
	end := Arrival{Sig: term, Context: true}
	interrupt := Arrival{Sig: term, Interrupt: true}
	for _, test := range []struct {
		name      string
		add, want []Arrival
	}{
		{"none", nil, nil},
		{"in order", []Arrival{{Sig: usr1}, {Sig: hup}}, []Arrival{{Sig: usr1}, {Sig: hup}}},
		{"one of each", []Arrival{{Sig: hup}, {Sig: usr1}, {Sig: hup}, {Sig: hup}}, []Arrival{{Sig: hup}, {Sig: usr1}}},
		{"shutdown first", []Arrival{{Sig: hup}, {Sig: usr1}, {Sig: term}}, []Arrival{{Sig: term}, {Sig: hup}, {Sig: usr1}}},
		{"all kinds of shutdown", []Arrival{{Sig: hup}, interrupt, {Sig: term}, end, interrupt}, []Arrival{interrupt, {Sig: term}, end, {Sig: hup}}},
		{"of the program and of a process", []Arrival{{Sig: term, Origin: "a"}, {Sig: term}, {Sig: term, Origin: "b"}}, []Arrival{{Sig: term}}},
		{"of the program twice", []Arrival{{Sig: term, Origin: "a"}, {Sig: term, Origin: "b"}}, []Arrival{{Sig: term, Origin: "a"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var q Queue
			for _, a := range test.add {
				q.Add(a)
			}
			for _, a := range test.want {
				if !q.Has(a.Sig) {
					t.Errorf("%v is not there", a.Sig)
				}
			}
			var got []Arrival
			for a, ok := q.Take(term); ok; a, ok = q.Take(term) {
				got = append(got, a)
			}
			if !slices.Equal(got, test.want) || q.Has(term) || len(q) > 0 {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// The end of a context is dropped, and a real signal of the same number is not.
func TestDropContext(t *testing.T) {
	var q Queue
	for _, a := range []Arrival{{Sig: term, Context: true}, {Sig: hup}, {Sig: term}} {
		q.Add(a)
	}
	q.DropContext()
	if want := (Queue{{Sig: hup}, {Sig: term}}); !slices.Equal(q, want) {
		t.Errorf("%v, want %v", q, want)
	}
}

// Signals arrive until release, also while the receiver is busy with an earlier one.
func TestTrap(t *testing.T) {
	arrived, proceed := make(chan os.Signal), make(chan struct{})
	release := Trap(usr1, func(sig os.Signal) {
		arrived <- sig
		<-proceed
	})
	kill := func() {
		if err := syscall.Kill(os.Getpid(), usr1); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	if got := <-arrived; got != usr1 {
		t.Errorf("received %v", got)
	}
	kill() // waits in the channel
	time.Sleep(10 * time.Millisecond)
	proceed <- struct{}{}
	if got := <-arrived; got != usr1 {
		t.Errorf("received %v", got)
	}
	proceed <- struct{}{}
	keep := make(chan os.Signal, 1) // or the signal would end the test
	signal.Notify(keep, usr1)
	defer signal.Stop(keep)
	release()
	kill()
	<-keep
	select {
	case got := <-arrived:
		t.Errorf("received %v after release", got)
	case <-time.After(10 * time.Millisecond):
	}
}
