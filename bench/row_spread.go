//go:build linux

package main

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"sync"
)

// connections is the number of open connections.
const connections = 64

// spreadRow opens connections at the same time and counts how many each worker
// has accepted.
func spreadRow(r *run) error {
	rounds := r.rounds(40, 3)
	r.bounds("%d connections at once, %d rounds, over 2, 4 and 8 workers", connections, rounds)
	web, err := r.builds.program("web", false)
	if err != nil {
		return err
	}
	for _, k := range []int{2, 4, 8} {
		n := strconv.Itoa(k)
		port := func() string { return address(freePort()) }
		all := []*spreading{
			{name: "prefork, a socket for each worker", args: []string{web, "prefork", "-workers", n, "-each", "-listen", port()}},
			{name: "prefork, one socket", args: []string{web, "prefork", "-workers", n, "-listen", port()}},
			{name: "fasthttp/prefork, Reuseport", args: []string{web, "fasthttp", "-each", "-listen", port()}},
			{name: "fasthttp/prefork", args: []string{web, "fasthttp", "-listen", port()}},
		}
		random := math.Sqrt(float64(k-1) / connections)
		err := spreadOver(r, k, rounds, all)
		for _, s := range all {
			s.stop()
		}
		if err != nil {
			return err
		}
		for i, s := range all {
			var g *goal
			if i == 0 {
				g = atMost(1.2)
			}
			r.figure(fmt.Sprintf("%d workers: %s, mean / random (%.3f)", k, s.name, random), mean(s.took.Samples)/random, times, g)
		}
	}
	r.note("Random is √((k−1)/%d), the expected value for a random worker for each connection.", connections)
	return nil
}

// spreading is a server with several workers.
type spreading struct {
	*program
	name string
	args []string
	took *series
}

func spreadOver(r *run, k, rounds int, all []*spreading) (err error) {
	for _, s := range all {
		s.took = r.series(fmt.Sprintf("%d workers", k), s.name, "coefficient of variation", count)
		if s.program, err = r.start(spec{name: s.name, args: s.args, env: []string{"GOMAXPROCS=" + strconv.Itoa(k)}}); err != nil {
			return err
		}
		if err := childrenReady(r.ctx, s.program, k); err != nil {
			return err
		}
	}
	for round := range rounds {
		for _, s := range turns(round, all) {
			counts, err := s.count(k)
			if err != nil {
				return err
			}
			s.took.add(variation(counts))
		}
	}
	return nil
}

// count opens the connections and sends a request on each while all are open.
// It returns the number of connections of each of k workers.
func (s *spreading) count(k int) ([]int, error) {
	var mu sync.Mutex
	accepted := map[string]int{}
	var failed error
	var open, done sync.WaitGroup
	open.Add(connections)
	for range connections {
		done.Go(func() {
			worker, err := func() (string, error) {
				conn, err := net.Dial("tcp", s.address())
				if err != nil {
					open.Done()
					return "", err
				}
				defer conn.Close()
				worker, err := askOn(conn, "/pid", true)
				open.Done()
				open.Wait()
				return worker, err
			}()
			mu.Lock()
			defer mu.Unlock()
			accepted[worker]++
			if err != nil {
				failed = err
			}
		})
	}
	done.Wait()
	if failed != nil {
		return nil, s.errorf("%v", failed)
	}
	if len(accepted) > k {
		return nil, s.errorf("%d workers have answered, want at most %d", len(accepted), k)
	}
	counts := make([]int, 0, k)
	for _, n := range accepted {
		counts = append(counts, n)
	}
	return append(counts, make([]int, k-len(counts))...), nil
}

func (s *spreading) address() string { return s.args[len(s.args)-1] }
