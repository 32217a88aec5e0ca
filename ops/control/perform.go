package control

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

const (
	commandTimeout = time.Minute
	waitTimeout    = 30 * time.Second
	maxTimeout     = 24 * time.Hour
)

// A command is a request of a client to change something in some pools.
type command struct {
	name  string
	note  string // of the events and the log
	pools []*pool
	// program is set if it is for the program, and run is called once, with nil.
	program bool

	// steers is set if it decides which workers run. For a service its supervisor does
	// that alone: it would lose count of a run that another has started.
	steers bool

	again bool // a successor that takes over before the outcome has to do it as well

	// prepare, if set, is called once the request is known to make sense.
	prepare func() error

	// run does it in one pool and waits for the outcome, at most until ctx ends.
	// The change goes on after that.
	run func(ctx context.Context, p *pool) (result, error)
}

// A result describes the effect of a command.
type result struct {
	generation, successor int
	text                  string
}

// errPending is returned by a command that is not done in time. It goes on.
type errPending struct{ text string }

func (e errPending) Error() string { return e.text }

// errSuperseded is returned by a command or a wait that the successor has to carry
// out: clients send it again.
var errSuperseded = errors.New(client.Superseded)

// perform carries a command out and answers with the outcome.
func (x *exchange) perform(c command) error {
	timeout, err := x.duration("timeout", commandTimeout)
	if err != nil {
		return err
	}
	if len(c.pools) == 0 && !c.program {
		return errNoPools
	}
	if c.steers {
		if err := x.notServices(c.pools); err != nil {
			return err
		}
	}
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return err
		}
	}
	wait := x.query.Get("wait") != "0"
	stream := x.newStream(c.pools)
	stream.at = x.ring.end()
	for _, p := range c.pools {
		p.pm.Note(x.peer.String(), c.note)
	}
	if c.program {
		x.log.Info(c.note, "by", x.peer.String())
	}
	began := time.Now()
	done := make(chan *client.Answer, 1)
	work, release := context.WithTimeout(context.Background(), timeout)
	x.handlers.Go(func() { // it goes on without the client
		defer release()
		stop := x.endWith(release)
		defer stop()
		a := x.runAll(work, c)
		x.forget()
		a.Seconds = seconds(time.Since(began))
		done <- a
	})
	if !wait {
		return answerJSON(x.w, 202, client.Answer{Command: c.name, Outcome: client.Pending, Text: "accepted"})
	}
	gone, cancel := x.untilGone(0)
	defer cancel()
	if x.accepts(typeNDJSON) {
		return x.performWithEvents(stream, gone, done)
	}
	select {
	case a := <-done:
		return answerJSON(x.w, codeOf(a), a)
	case <-gone.Done():
		return gone.Err()
	}
}

// performWithEvents writes the events until the outcome, then the outcome.
func (x *exchange) performWithEvents(s *stream, gone context.Context, done <-chan *client.Answer) error {
	s.out = head(200, typeNDJSON, -1)
	for {
		changed, err := s.copy()
		if errors.Is(err, errLost) {
			s.at = x.ring.end()
			changed, err = s.copy()
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-gone.Done():
			return gone.Err()
		case a := <-done:
			if _, err := s.copy(); err != nil && !errors.Is(err, errLost) {
				return err
			}
			a.Type, a.Code = client.TypeOutcome, codeOf(a)
			line := encode(a)
			s.put(0, line[:len(line)-1])
			return s.flush()
		}
	}
}

// endWith calls cancel when the server closes, until stop is called.
func (s *server) endWith(cancel func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

func codeOf(a *client.Answer) int {
	switch {
	case a.Outcome == client.Done:
		return 200
	case a.Outcome == client.Pending:
		return 504
	case a.Error == client.Superseded:
		return 503
	}
	return 409
}

// runAll runs a command in all its pools at once.
func (s *server) runAll(ctx context.Context, c command) *client.Answer {
	if c.program {
		r, err := s.runOne(ctx, c, nil)
		a := s.outcome(ctx, c, &pool{}, r, err)
		return &a
	}
	answers := make([]client.Answer, len(c.pools))
	var wg sync.WaitGroup
	for i, p := range c.pools {
		wg.Go(func() {
			r, err := s.runOne(ctx, c, p)
			answers[i] = s.outcome(ctx, c, p, r, err)
		})
	}
	wg.Wait()
	if len(answers) == 1 {
		a := answers[0]
		a.Pool = ""
		return &a
	}
	all := &client.Answer{Command: c.name, Outcome: client.Done, Pools: answers}
	var texts, errs []string
	for _, a := range answers {
		switch {
		case a.Outcome == client.Done:
			texts = append(texts, fmt.Sprintf("pool %q: %s", a.Pool, a.Text))
		case a.Outcome == client.Failed, all.Outcome == client.Done:
			all.Outcome = a.Outcome
		}
		if a.Error != "" {
			errs = append(errs, fmt.Sprintf("pool %q: %s", a.Pool, a.Error))
		}
	}
	all.Text, all.Error = some(texts, "; "), some(errs, "; ")
	return all
}

// runOne runs a command in one pool. A defect in it must not end the manager.
func (s *server) runOne(ctx context.Context, c command, p *pool) (r result, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("control: panic", "command", c.name, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	r, err = c.run(ctx, p)
	if err != nil && c.again && s.isSuperseded() {
		err = errSuperseded
	}
	return r, err
}

func (s *server) outcome(ctx context.Context, c command, p *pool, r result, err error) client.Answer {
	a := client.Answer{Command: c.name, Pool: p.name, Outcome: client.Done, Generation: r.generation, Successor: r.successor, Text: r.text}
	var pending errPending
	if err != nil {
		a.Text = ""
	}
	switch {
	case err == nil:
	case errors.Is(err, errSuperseded):
		a.Outcome, a.Error, a.Successor = client.Failed, client.Superseded, int(s.successor.Load())
	case errors.As(err, &pending):
		a.Outcome, a.Error = client.Pending, pending.text
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		a.Outcome, a.Error = client.Pending, "not done yet, and goes on"
		if s.isClosing() {
			a.Outcome, a.Error = client.Failed, client.Ending
		}
	default:
		a.Outcome, a.Error = client.Failed, reason(err)
	}
	return a
}

// reason returns the text of a Manager's error. It is shown after the name of the
// command, which the error need not repeat.
func reason(err error) string {
	var none *prefork.NoWorkerError
	if errors.As(err, &none) {
		return fmt.Sprintf("there is no worker with ID %d; it may have exited", none.Ordinal)
	}
	text := strings.TrimPrefix(err.Error(), "prefork: ")
	for _, repeated := range []string{"Reload: ", "RequestUpgrade: ", "ReplaceWorker: ", "reload failed, "} {
		text = strings.TrimPrefix(text, repeated)
	}
	return text
}

func (s *server) isClosing() bool    { return isClosed(s.closing) }
func (s *server) isSuperseded() bool { return isClosed(s.superseded) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// duration returns a parameter that is a duration.
func (x *exchange) duration(name string, byDefault time.Duration) (time.Duration, error) {
	text := x.query.Get(name)
	if text == "" {
		return byDefault, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxTimeout {
		return 0, problemf(400, "%s=%.40q is not a duration of at most %v: write 30s", name, text, maxTimeout)
	}
	return d, nil
}
