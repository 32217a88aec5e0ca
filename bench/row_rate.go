//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// serverWorkers is the number of workers of each pool of servers.
const serverWorkers = 2

// rate measures the requests per second and the 99th percentile of the
// latencies. It combines two handlers, two HTTP servers, both kinds of sockets,
// and workers with one thread and with the default. The base lines are one
// process and fasthttp's prefork.
func rate(r *run) error {
	if _, err := command("wrk"); err != nil {
		return r.skipMissing("everything", err)
	}
	web, err := r.builds.program("web", false)
	if err != nil {
		return err
	}
	rounds, lasts := r.rounds(12, 1), r.lasts(time.Second, time.Second)
	r.bounds("%d workers; wrk, 1 thread, %d connections; %d rounds of %v after a warm-up of 1 s; %s; alloc also with load and servers on all processors",
		serverWorkers, connections, rounds, lasts, r.cpus)
	var all []*rated
	for _, fast := range []bool{false, true} {
		all = append(all, ratedServers(r, web, true, "/hello", fast)...)
		all = append(all, ratedServers(r, web, true, "/alloc", fast)...)
		all = append(all, ratedServers(r, web, false, "/alloc", fast)...)
	}
	for round := range rounds {
		for _, c := range turns(round, all) {
			if err := c.measure(r, lasts); err != nil {
				return err
			}
		}
	}
	compareRates(r, all)
	if len(r.cpus.serve) == 1 {
		r.note("With the load on other processors, the servers have one processor here. One process then has one thread, too, so the goal of ≥ 1.3 × one process applies only with the load beside the servers.")
	}
	return nil
}

// rated is a server under load.
type rated struct {
	spec      spec
	path      string
	rate, p99 *series
	against   string // for this library: the peer with the same sockets
}

// ratedServers returns the contenders for one handler and one HTTP server.
func ratedServers(r *run, web string, apart bool, path string, fast bool) (all []*rated) {
	server, cpus := "net/http", r.cpus.serve
	if fast {
		server = "fasthttp"
	}
	group := fmt.Sprintf("%s, %s", strings.TrimPrefix(path, "/"), server)
	if !apart {
		group, cpus = group+", load beside", nil
	}
	add := func(name, settings, against string, args ...string) {
		if fast {
			args = append(args, "-fast")
		}
		c := &rated{path: path, against: against, spec: spec{name: name, args: append([]string{web}, args...), cpus: cpus}}
		c.rate = r.series(group, name, settings, perSecond)
		c.p99 = r.series(group+", p99", name, settings, inSeconds)
		all = append(all, c)
	}
	n := strconv.Itoa(serverWorkers)
	add(oneProcess, "", "", "single")
	for _, each := range []bool{false, true} {
		socket, flag := "one socket", "-each=false"
		if each {
			socket, flag = "a socket each", "-each"
		}
		peer := "fasthttp/prefork, " + socket
		add(peer, "GOMAXPROCS=1 in workers, its default", "", "fasthttp", flag)
		all[len(all)-1].spec.env = []string{"GOMAXPROCS=" + n} // its number of workers
		add("prefork, "+socket, "default GOMAXPROCS", peer, "prefork", "-workers", n, flag)
		add("prefork, "+socket+", GOMAXPROCS left alone", "Resources.GOMAXPROCS -1", peer, "prefork", "-workers", n, "-gomaxprocs", "-1", flag)
		add("prefork, "+socket+", GOMAXPROCS=1", "Resources.GOMAXPROCS 1", peer, "prefork", "-workers", n, "-gomaxprocs", "1", flag)
	}
	return all
}

const oneProcess = "one process"

// measure starts the server, warms it up, and measures it once.
func (c *rated) measure(r *run, lasts time.Duration) error {
	port := freePort()
	s := c.spec
	s.args = append(s.args[:len(s.args):len(s.args)], "-listen", address(port))
	p, err := r.start(s)
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := serving(r.ctx, p, port); err != nil {
		return err
	}
	url := "http://" + address(port) + c.path
	if _, err := r.wrk(r.ctx, url, time.Second); err != nil {
		return err
	}
	got, err := r.wrk(r.ctx, url, lasts)
	if err != nil {
		return err
	}
	if got.bad != "" {
		return p.errorf("%s", got.bad)
	}
	c.rate.add(got.rate)
	c.p99.addTime(got.p99)
	return nil
}

// compareRates compares each contender of this library with the peer with the
// same sockets, and with one process.
func compareRates(r *run, all []*rated) {
	byTitle := map[string]*rated{}
	for _, c := range all {
		byTitle[c.rate.title()] = c
	}
	for _, c := range all {
		if c.against == "" {
			continue
		}
		r.ratio(c.rate, byTitle[join(c.rate.Group, c.against)].rate, atLeast(1))
		if c.path == "/alloc" && strings.HasSuffix(c.spec.name, "=1") {
			single := byTitle[join(c.rate.Group, oneProcess)]
			g := atLeast(1.3)
			if len(c.spec.cpus) == 1 {
				g = nil // one process has one thread, too
			}
			r.ratio(c.rate, single.rate, g)
			r.ratio(c.p99, single.p99, nil)
		}
	}
}
