package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// all returns the pools, which the caller must not change.
func (s *server) all() []*pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pools
}

// look gives a request the pools as they are now.
func (x *exchange) look() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pools, x.changes, x.from = x.server.pools, x.server.changes, x.ring.end()
}

// add adds a pool in the order of the names.
func (s *server) add(pm manager) (remove func()) {
	cfg := pm.Config()
	p := &pool{pm: pm, cfg: cfg, name: cfg.Name}
	follow := s.follower(p)
	// Readers are sent the state of the pool before its events. An event that the loop
	// stores meanwhile waits here.
	var mu sync.Mutex
	var early []prefork.Record
	announced := false
	snap, unfollow := pm.Follow(func(r prefork.Record) {
		mu.Lock()
		defer mu.Unlock()
		if announced {
			follow(r)
		} else {
			early = append(early, r)
		}
	})
	p.unfollow = sync.OnceFunc(unfollow)
	notice := poolLine(p, client.TypePoolAdded, "has come", p.status(snap, time.Now(), false))
	s.mu.Lock()
	at, _ := slices.BinarySearchFunc(s.pools, p.name, func(p *pool, name string) int { return strings.Compare(p.name, name) })
	s.pools = slices.Insert(slices.Clone(s.pools), at, p)
	s.changes++
	s.ring.add(&entry{pool: p, come: true, Record: prefork.Record{Seq: snap.Seq}, notice: notice})
	s.mu.Unlock()
	mu.Lock()
	announced = true
	for _, r := range early {
		follow(r)
	}
	mu.Unlock()
	return sync.OnceFunc(func() { s.remove(p) })
}

func (s *server) remove(p *pool) {
	p.unfollow()
	p.gone.Store(true)
	notice := poolLine(p, client.TypePoolRemoved, "has gone", nil)
	s.mu.Lock()
	i := slices.Index(s.pools, p)
	s.pools = slices.Delete(slices.Clone(s.pools), i, i+1)
	s.changes++
	s.ring.add(&entry{pool: p, left: true, notice: notice})
	s.mu.Unlock()
	s.cache.forget(p.name)
}

// poolLine is the event that a pool has come or gone.
func poolLine(p *pool, typ, text string, data any) []byte {
	raw, err := json.Marshal(data)
	if err != nil {
		raw = []byte("null")
	}
	return eventLine(client.Event{
		Time: time.Now().UTC(), PID: os.Getpid(), Pool: p.name, Type: typ, Text: fmt.Sprintf("pool %s %s", p.name, text), Data: raw,
	})
}

// errGone is the error of a command in a pool that has gone.
var errGone = errors.New("the pool has gone")

// some joins the first texts of a list, and says how many there are besides.
func some(texts []string, separator string) string {
	const most = 10
	if n := len(texts) - most; n > 1 {
		texts = append(slices.Clip(texts[:most]), fmt.Sprintf("and %d more", n))
	}
	return strings.Join(texts, separator)
}
