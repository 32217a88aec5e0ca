//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// wrkResult is the output of a run of wrk.
type wrkResult struct {
	rate float64 // requests per second
	p99  time.Duration
	bad  string // its line about errors, or ""
}

// wrk loads a server from one thread with 64 kept-alive connections.
func (r *run) wrk(ctx context.Context, url string, d time.Duration) (wrkResult, error) {
	path, err := command("wrk")
	if err != nil {
		return wrkResult{}, err
	}
	// wrk accepts only whole seconds.
	cmd := exec.CommandContext(ctx, path, "-t1", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", int(d.Seconds()+0.5)), "--latency", url)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.launcher.start(cmd, r.cpus.load); err != nil {
		return wrkResult{}, err
	}
	if err := cmd.Wait(); err != nil {
		return wrkResult{}, fmt.Errorf("wrk: %w: %s", err, out.String())
	}
	return parseWrk(out.String())
}

var (
	wrkRate   = regexp.MustCompile(`(?m)^Requests/sec:\s+([\d.]+)$`)
	wrkP99    = regexp.MustCompile(`(?m)^\s+99%\s+([\d.]+)(us|ms|s|m)\s*$`)
	wrkErrors = regexp.MustCompile(`(?m)^\s+(Socket errors: .*|Non-2xx or 3xx responses: .*)$`)
)

func parseWrk(out string) (w wrkResult, err error) {
	rate, p99 := wrkRate.FindStringSubmatch(out), wrkP99.FindStringSubmatch(out)
	if rate == nil || p99 == nil {
		return w, fmt.Errorf("output of wrk lacks the rate or the latencies: %s", out)
	}
	if w.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return w, err
	}
	if w.p99, err = time.ParseDuration(p99[1] + p99[2]); err != nil {
		return w, err
	}
	if bad := wrkErrors.FindStringSubmatch(out); bad != nil {
		w.bad = bad[1]
	}
	return w, nil
}
