package run

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// A prober asks starting workers whether they are ready.
type prober struct {
	r     ready
	found func(pid int) bool

	wg     sync.WaitGroup
	cancel map[int]context.CancelFunc // by pid; of the loop's goroutine
}

const (
	probeInterval = 100 * time.Millisecond
	probeTimeout  = time.Second
)

func newProber(r ready, found func(pid int) bool) *prober {
	return &prober{r: r, found: found, cancel: make(map[int]context.CancelFunc)}
}

// start asks a worker until it answers or stop is called.
func (p *prober) start(pid, slot, generation int) {
	if p.r.url == "" && p.r.tcp == "" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel[pid] = cancel
	check := func() bool { return accepts(ctx, expand(p.r.tcp, slot, generation)) }
	if p.r.url != "" {
		check = func() bool { return answers(ctx, expand(p.r.url, slot, generation)) }
	}
	p.wg.Go(func() {
		tick := time.NewTicker(probeInterval)
		defer tick.Stop()
		for ctx.Err() == nil {
			if check() {
				p.found(pid)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
}

// stop ends the questions to a worker.
func (p *prober) stop(pid int) {
	if cancel := p.cancel[pid]; cancel != nil {
		cancel()
		delete(p.cancel, pid)
	}
}

// close ends all questions.
func (p *prober) close() {
	for pid := range p.cancel {
		p.stop(pid)
	}
	p.wg.Wait()
}

// accepts reports whether a connection can be made.
func accepts(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: probeTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// probeClient follows no redirect: one is an answer. A new connection each time
// reaches the new worker, and not one that it replaces.
var probeClient = &http.Client{
	Timeout:       probeTimeout,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// answers reports whether a URL is answered with a status from 200 to 399.
func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode >= 200 && resp.StatusCode < 400
}
