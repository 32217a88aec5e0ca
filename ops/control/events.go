package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/record"
)

// batch is how many events are read and written at once.
const batch = 64

// line returns the event as JSON without a newline. It is encoded once for all
// readers.
func (e *entry) line() []byte {
	if made := e.json.Load(); made != nil {
		return *made
	}
	name, data, err := record.Encode(e.Event)
	if err != nil { // an event that this version does not know
		name, data = "unknown", []byte("null")
	}
	line := eventLine(client.Event{
		Seq: e.Seq, Time: e.Time.UTC(), PID: os.Getpid(), Pool: e.pool.name, Type: name, Text: e.Event.String(), Data: data,
	})
	e.json.Store(&line)
	return line
}

func eventLine(e client.Event) []byte {
	line, err := json.Marshal(e)
	if err != nil {
		line = []byte(`{"type":"unknown"}`)
	}
	return line
}

// A stream writes events to a client.
type stream struct {
	x      *exchange
	all    bool             // also pools that come later are wanted
	from   uint64           // number of the first entry of the ring that is after order was taken
	change int              // how often the pools had changed
	order  []*pool          // those that are wanted
	pools  map[*pool]uint64 // the same, and the last event that the client has
	at     uint64           // number of the next entry of the ring
	sse    bool
	out    []byte // not written yet
	buf    [batch]*entry
	ending bool // an End was written
}

func (x *exchange) newStream(pools []*pool) *stream {
	s := &stream{x: x, order: slices.Clone(pools), pools: make(map[*pool]uint64), change: x.changes}
	for _, p := range pools {
		s.pools[p] = 0
	}
	return s
}

// position returns what the client has seen, for since: the number of the last event
// of each pool, and whose numbers they are.
func (s *stream) position() string {
	var b strings.Builder
	for i, p := range s.order {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(s.pools[p], 10))
	}
	b.WriteString("@" + strconv.Itoa(os.Getpid()))
	if s.change > 0 {
		b.WriteString("/" + strconv.Itoa(s.change))
	}
	return b.String()
}

// put adds a line. A zero seq gives it no id.
func (s *stream) put(seq uint64, line []byte) {
	switch {
	case !s.sse:
	case seq > 0:
		s.out = fmt.Appendf(s.out, "id: %s\ndata: ", s.position())
	default:
		s.out = append(s.out, "data: "...)
	}
	s.out = append(s.out, line...)
	s.out = append(s.out, '\n')
	if s.sse {
		s.out = append(s.out, '\n')
	}
}

// special adds an event that is in no journal.
func (s *stream) special(typ, text string, data any) {
	e := client.Event{Time: time.Now().UTC(), PID: os.Getpid(), Type: typ, Text: text, Data: json.RawMessage("null")}
	if data != nil {
		if raw, err := json.Marshal(data); err == nil {
			e.Data = raw
		}
	}
	s.put(0, eventLine(e))
}

// flush writes the added lines.
func (s *stream) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.x.w.Write(s.out)
	s.out = s.out[:0]
	return err
}

// copy writes the events that are in the ring. If there are no more, changed is
// closed when there are.
func (s *stream) copy() (changed <-chan struct{}, err error) {
	for {
		entries, changed, lost := s.x.ring.read(s.at, s.buf[:0])
		if lost {
			s.special(client.TypeLost, "this reader was too slow, so events are missing: connect again", nil)
			return nil, errors.Join(s.flush(), errLost)
		}
		if len(entries) == 0 {
			return changed, s.flush()
		}
		for _, e := range entries {
			s.add(e)
			s.at++
		}
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
}

// errLost ends a stream whose reader has missed events.
var errLost = errors.New("events are missing")

func (s *stream) add(e *entry) {
	if e.notice != nil {
		s.addNotice(e)
		return
	}
	last, wanted := s.pools[e.pool]
	if !wanted || e.Seq <= last {
		return
	}
	s.pools[e.pool] = e.Seq
	s.put(e.Seq, e.line())
	if up, ok := e.Event.(prefork.UpgradedEvent); ok {
		s.end(client.End{Reason: client.Upgraded, Successor: up.PID})
	}
}

// addNotice adds the event that a pool has come or left, unless the stream has begun
// after it.
func (s *stream) addNotice(e *entry) {
	_, known := s.pools[e.pool]
	switch {
	case s.at < s.from || !s.all && !(known && e.left):
		return
	case e.come:
		at, _ := slices.BinarySearchFunc(s.order, e.pool.name, func(p *pool, name string) int { return strings.Compare(p.name, name) })
		s.order = slices.Insert(s.order, at, e.pool)
		s.pools[e.pool] = e.Seq
	default:
		s.order = slices.DeleteFunc(s.order, func(p *pool) bool { return p == e.pool })
		delete(s.pools, e.pool)
	}
	s.change++
	s.put(0, e.notice)
}

// end tells the client that another process is the manager, or none.
func (s *stream) end(why client.End) {
	if s.ending {
		return
	}
	s.ending = true
	text := "manager stopped"
	if why.Successor != 0 {
		text = fmt.Sprintf("successor %d is the manager", why.Successor)
	}
	s.special(client.TypeEnd, text, why)
}

func (x *exchange) events() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	s := x.newStream(pools)
	s.sse = x.accepts(typeSSE)
	s.all, s.from = !x.query.Has("pool"), x.from
	since, err := x.since(len(pools))
	if err != nil {
		return err
	}
	contentType := typeNDJSON
	if s.sse {
		contentType = typeSSE
	}
	s.at = x.ring.begin()
	s.out = head(200, contentType, -1)
	if since != nil {
		for i, p := range pools {
			s.pools[p] = since[i]
		}
	} else {
		s.state(pools)
	}
	return s.follow(x.query.Get("follow") != "0")
}

// since returns the number of the last event of each pool that the client has; nil
// if it asks for the state, or if pools have come or gone since then, so that their
// numbers are those of others. Those of another manager, such as the predecessor,
// do not count here. One number is for all pools.
func (x *exchange) since(pools int) ([]uint64, error) {
	text := x.query.Get("since")
	changed := false // if a number does not say of which pool it is
	if text == "" {
		text = x.header.Get("Last-Event-Id") // of a browser that connects again
		changed = x.changes > 0
	}
	if text == "" {
		return nil, nil
	}
	numbers, by, _ := strings.Cut(text, "@")
	pid, change, _ := strings.Cut(by, "/")
	own := pid == "" || pid == strconv.Itoa(os.Getpid())
	parts := strings.Split(numbers, ",")
	switch {
	case change != "", len(parts) > 1:
		n, _ := strconv.Atoi(change)
		changed = n != x.changes
	}
	if own && changed {
		return nil, nil
	}
	if len(parts) != 1 && len(parts) != pools && (own || x.changes == 0) {
		return nil, problemf(400, "since=%.40q is for %d pools, and there are %d here", text, len(parts), pools)
	}
	since := make([]uint64, pools)
	for i := range since {
		n, err := strconv.ParseUint(parts[min(i, len(parts)-1)], 10, 64)
		if err != nil {
			return nil, problemf(400, "since=%.40q is not the number of an event", text)
		}
		if own {
			since[i] = n
		}
	}
	return since, nil
}

// state adds the state of the pools. The events that follow it are in the ring.
func (s *stream) state(pools []*pool) {
	status, _ := s.x.statusOf(pools, false, false)
	seq := uint64(0)
	for i, p := range pools {
		s.pools[p] = status.Pools[i].Seq
		seq = max(seq, status.Pools[i].Seq)
	}
	data, err := json.Marshal(status)
	if err != nil {
		data = []byte("null")
	}
	s.put(seq, eventLine(client.Event{
		Seq: seq, Time: status.Now.UTC(), PID: status.PID, Type: client.TypeState, Text: "state of " + status.Name, Data: data,
	}))
}

// follow writes events until the client is gone or the server closes.
func (s *stream) follow(on bool) error {
	changed, err := s.copy()
	if err != nil || !on {
		return err
	}
	ctx, cancel := s.x.untilGone(0)
	defer cancel()
	beat := time.NewTicker(s.x.beat)
	defer beat.Stop()
	for {
		select {
		case <-changed:
			if changed, err = s.copy(); err != nil {
				return err
			}
		case <-beat.C:
			s.special(client.TypeBeat, "", nil)
			if err := s.flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.x.closing:
			if _, err := s.copy(); err != nil {
				return err
			}
			s.end(client.End{Reason: client.Stopped})
			return s.flush()
		}
	}
}
