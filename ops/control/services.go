package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// Services are the services of a program such as prefork watch, each of which has
// a Manager. The methods are called from several goroutines and must not block.
type Services interface {
	// Services returns the services as they are, in the order of their names.
	Services() []client.Service

	// Started reports whether each of the services that were there at the start was
	// started once, cannot be started, or is meant to be down. It is false when all
	// are being stopped.
	Started() bool

	// Changed returns a channel that is closed when a service has changed since the
	// call, has come or has gone.
	Changed() <-chan struct{}

	// Do passes a byte of supervise/control to a service, or to the logger of one,
	// whose name is NAME/log. It need not be carried out when Do returns.
	Do(name string, command byte) error

	// Keep writes or removes the file down of a service.
	Keep(name string, down bool) error
}

// A serviceState is a state of a service that a client waits for. It holds for a
// service as it is now, and as it was before the command.
type serviceState func(now, before *client.Service) bool

var serviceStates = map[string]serviceState{
	"up": func(now, _ *client.Service) bool { return isUp(now) && now.Ready && remainsUp(now) == 0 },
	"down": func(now, _ *client.Service) bool {
		// A start may be under way while it is wanted up.
		return now.PID == 0 && now.State != client.StateRun && now.State != client.StateFinish && now.Want != client.WantUp
	},
	"restarted": func(now, before *client.Service) bool {
		return isUp(now) && now.Ready && remainsUp(now) == 0 && !now.Term && !now.Since.Equal(before.Since)
	},
	"started": func(now, before *client.Service) bool { // once, which may have ended already
		return isUp(now) && now.Want != client.WantUp || now.PID == 0 && !now.Since.Equal(before.Since)
	},
	"paused":    func(now, _ *client.Service) bool { return now.Paused },
	"continued": func(now, _ *client.Service) bool { return !now.Paused },
	"ended":     func(now, _ *client.Service) bool { return now.State == client.StateEnded },
}

func isUp(s *client.Service) bool { return s.State == client.StateRun && s.PID != 0 }

// proven is how long a service that does not report its readiness must have lived to
// count as up: one that cannot work usually ends at once, and would be up or down by
// chance. sv of runit looks after the same time.
const proven = 420 * time.Millisecond

// remainsUp returns how long a service that is up must still live.
func remainsUp(s *client.Service) time.Duration {
	if s.Notifies || !isUp(s) {
		return 0
	}
	return max(0, proven-time.Since(s.Since))
}

// serviceCondition returns the condition of until, a list of states.
func serviceCondition(until string) (serviceState, error) {
	var states []serviceState
	for name := range strings.SplitSeq(until, ",") {
		state, ok := serviceStates[name]
		if !ok {
			return nil, problemf(400, "until=%.60q: the states are up, down, restarted, started, paused, continued and ended", until)
		}
		states = append(states, state)
	}
	return func(now, before *client.Service) bool {
		return slices.ContainsFunc(states, func(s serviceState) bool { return s(now, before) })
	}, nil
}

// notServices returns an error if one of the pools is a service.
func (s *server) notServices(pools []*pool) error {
	if s.cfg.Services == nil {
		return nil
	}
	services, _ := s.serviceMap()
	for _, p := range pools {
		if services[p.name] != nil {
			return problemf(409, "%.60s is a service: use prefork sv (restart, down, up), and its file instances for more copies", p.name)
		}
	}
	return nil
}

// serviceMap returns the services and their loggers by name.
func (s *server) serviceMap() (map[string]*client.Service, []client.Service) {
	all := s.cfg.Services.Services()
	byName := make(map[string]*client.Service, len(all))
	for i := range all {
		one := &all[i]
		byName[one.Name] = one
		if one.Log != nil {
			byName[one.Name+"/log"] = one.Log
		}
	}
	return byName, all
}

// unready returns the names of the services and loggers that are not ready, except
// those that are meant to be down, and the pools of this moment that are none.
func (s *server) unready() (names []string, others []*pool) {
	s.mu.Lock()
	pools := s.pools
	s.mu.Unlock()
	if s.cfg.Services == nil {
		return nil, pools
	}
	services, _ := s.serviceMap()
	for name, one := range services {
		if !one.Ready && !one.MeantDown() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, slices.DeleteFunc(slices.Clone(pools), func(p *pool) bool { return services[p.name] != nil })
}

// checkServices returns the problem of a program without services.
func (s *server) checkServices() error {
	if s.cfg.Services == nil {
		return problemf(404, "this program keeps no services")
	}
	return nil
}

// services answers with the services as they are, or waits for a state of them.
func (x *exchange) services() error {
	if err := x.checkServices(); err != nil {
		return err
	}
	if x.query.Get("until") != "" {
		return x.commandServices()
	}
	out := client.Services{API: client.API, Now: time.Now()}
	byName, all := x.serviceMap()
	names := x.query["name"]
	for _, name := range names {
		s := byName[name]
		if s == nil {
			return problemf(404, "there is no service %.60q", name)
		}
		out.Services = append(out.Services, *s)
	}
	if len(names) == 0 {
		out.Services = append([]client.Service{}, all...)
	}
	if !x.accepts("text/plain") {
		return answerJSON(x.w, 200, out)
	}
	var b []byte
	for i, s := range out.Services {
		name := s.Name
		if len(names) > 0 {
			name = names[i]
		}
		b = append(b, s.Line(name, out.Now)+"\n"...)
	}
	return answer(x.w, 200, typeText, b)
}

// commandBytes are those of supervise/control.
const commandBytes = "udotkpchaiq12x"

// A serviceCommand is a command for some services that is under way.
type serviceCommand struct {
	*exchange
	name   string
	holds  serviceState
	before map[string]*client.Service
	began  time.Time
	stream bool
	all    []client.ServiceOutcome
}

// commandServices passes bytes to services and waits for the outcome of each.
func (x *exchange) commandServices() error {
	if err := x.checkServices(); err != nil {
		return err
	}
	names, bytes, until, keep := x.query["name"], x.query.Get("bytes"), x.query.Get("until"), x.query.Get("keep")
	timeout, err := x.duration("timeout", commandTimeout)
	c := &serviceCommand{exchange: x, name: strings.TrimPrefix(x.path, "/v1/"), began: time.Now(), stream: x.accepts(typeNDJSON)}
	switch {
	case err != nil:
		return err
	case len(names) == 0:
		return problemf(400, "name the services: name=web")
	case x.method == "GET" && bytes+keep != "":
		return problemf(405, "bytes and keep are for POST /v1/services/command")
	case strings.Trim(bytes, commandBytes) != "":
		return problemf(400, "bytes=%.60q: they are %s", bytes, commandBytes)
	case keep != "" && keep != "up" && keep != "down":
		return problemf(400, "keep=%.60q is neither up nor down", keep)
	}
	if until != "" {
		if c.holds, err = serviceCondition(until); err != nil {
			return err
		}
	}
	if x.query.Get("wait") == "0" {
		c.holds = nil
	}
	gone, cancel := x.untilGone(timeout)
	defer cancel()
	c.before, _ = x.serviceMap()
	var sent []string
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return problemf(400, "name=%.60q stands twice", name)
		}
	}
	if c.stream {
		if _, err := x.w.Write(head(200, typeNDJSON, -1)); err != nil {
			return err
		}
	}
	for _, name := range names {
		err := c.send(name, bytes, keep)
		if err == nil && c.holds != nil {
			sent = append(sent, name)
			continue
		}
		if err := c.outcome(name, err); err != nil {
			return err
		}
	}
	if err := c.await(gone, sent); err != nil || c.stream {
		return err
	}
	return c.answer()
}

// send passes the bytes to one service.
func (c *serviceCommand) send(name, bytes, keep string) error {
	if c.before[name] == nil {
		return fmt.Errorf("there is no service %.60q", name)
	}
	if keep != "" {
		c.note(name, "keep "+keep)
		if err := c.cfg.Services.Keep(name, keep == "down"); err != nil {
			return err
		}
	}
	if bytes != "" {
		c.note(name, "service command "+bytes)
	}
	for _, b := range []byte(bytes) {
		if err := c.cfg.Services.Do(name, b); err != nil {
			return err
		}
	}
	return nil
}

// note records who has given a command: in the events and the log of the service's
// pool if it has one of its name.
func (c *serviceCommand) note(name, text string) {
	pools, _ := c.chosen()
	for _, p := range pools {
		if p.name == name {
			p.pm.Note(c.peer.String(), text)
			return
		}
	}
	c.log.Info(text, "service", name, "by", c.peer.String())
}

// await reports the outcome of each service as soon as its state holds.
func (c *serviceCommand) await(gone context.Context, names []string) error {
	for len(names) > 0 {
		changed := c.cfg.Services.Changed() // before the states are taken
		now, _ := c.serviceMap()
		over := gone.Err() != nil || c.isClosing()
		var left []string
		soon := time.Duration(math.MaxInt64) // until time alone makes one count as up
		for _, name := range names {
			var err error
			s := now[name]
			if s == nil { // its entry has gone
				s = &client.Service{Name: name, State: client.StateEnded}
			}
			switch {
			case c.holds(s, c.before[name]):
			case now[name] == nil:
				err = fmt.Errorf("there is no service %.60q any more", name)
			case s.GaveUp && (!c.before[name].GaveUp || !s.Since.Equal(c.before[name].Since)):
				err = errGaveUp
			case c.isClosing():
				err = errEnds
			case over:
				err = errPending{"not done yet, and goes on"}
			default:
				left = append(left, name)
				if d := remainsUp(s); d > 0 {
					soon = min(soon, d)
				}
				continue
			}
			if err := c.outcomeOf(name, now[name], err); err != nil {
				return err
			}
		}
		if names = left; len(names) == 0 {
			return nil
		}
		select {
		case <-time.After(soon):
		case <-changed:
			select { // many changes come together
			case <-time.After(awaitPause):
			case <-gone.Done():
			}
		case <-gone.Done():
		case <-c.closing:
		}
	}
	return nil
}

var (
	errGaveUp = errors.New(client.GaveUp)
	errEnds   = errors.New(client.Ending)
)

// outcome reports the outcome of a command that is not waited for.
func (c *serviceCommand) outcome(name string, err error) error {
	now, _ := c.serviceMap()
	return c.outcomeOf(name, now[name], err)
}

func (c *serviceCommand) outcomeOf(name string, s *client.Service, err error) error {
	o := client.ServiceOutcome{Name: name, Outcome: client.Done, Seconds: seconds(time.Since(c.began)), Service: s}
	if err != nil {
		o.Outcome, o.Error = client.Failed, err.Error()
		if _, ok := err.(errPending); ok {
			o.Outcome = client.Pending
		}
	}
	if !c.stream {
		c.all = append(c.all, o)
		return nil
	}
	_, err = c.w.Write(encode(o))
	return err
}

// answer is the answer to a client that takes no stream.
func (c *serviceCommand) answer() error {
	a := client.Answer{Command: c.name, Outcome: client.Done, Seconds: seconds(time.Since(c.began)), Services: c.all}
	var errs []string
	for _, o := range c.all {
		if o.Outcome == client.Failed || o.Outcome == client.Pending && a.Outcome == client.Done {
			a.Outcome = o.Outcome
		}
		if o.Error != "" {
			errs = append(errs, o.Name+": "+o.Error)
		}
	}
	a.Error = strings.Join(errs, "; ")
	return answerJSON(c.w, codeOf(&a), a)
}
