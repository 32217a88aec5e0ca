//go:build linux

package main

import "io"

// rows lists the rows of the table in order. Rows without peers come first if
// the order does not matter.
var rows = []row{
	{"respawn", "kill → replacement in its main, no standby", "the same binary spawned by hand", "≤ 1.15 ×", respawn},
	{"standby", "kill → replacement serving, one standby", "Parallel::Prefork, Starlet, fasthttp/prefork, runit, s6, gunicorn, unicorn", "≤ 0.5 × the best peer", standby},
	{"fleet", "1,000 workers: start until all are ready; signal until all have handled it; stop until all are reaped", "loops by hand", "≤ 1.1 ×, ≤ 1.2 ×, ≤ 1.2 ×", fleet},
	{"memory", "memory of an idle worker (PSS); private memory of the manager per worker", "a bare Go program with the same imports", "≤ 1.1 ×; ≤ 8 KiB", memoryRow},
	{"idle", "wake-ups per second of an idle pool of 1,000 workers", "Parallel::Prefork::SpareWorkers, gunicorn, fasthttp/prefork with its master watch", "0", idle},
	{"status", "SetStatus", "the scoreboard of Parallel::Prefork::SpareWorkers", "≤ 15 ns, 0 allocations", setStatus},
	{"policy", "one event in the policy at 10, 100, 1,000, 10,000 slots", "itself at 10", "≤ 1.5 × at 10,000", policy},
	{"rate", "requests/s and p99 of two handlers on net/http and fasthttp, one socket and one for each worker, GOMAXPROCS=1 and default", "one process, fasthttp/prefork", "≥ 1.0 × fasthttp/prefork; ≥ 1.3 × one process with heavy allocation", rate},
	{"reload", "failed requests and p99 during 20 reloads under load", "gunicorn HUP, unicorn USR2, start_server with Starlet, tableflip", "0 failed; p99 ≤ 1.5 × without reloads", reload},
	{"spread", "spread of 64 connections over 2, 4, 8 workers, mean of the coefficients of variation", "one socket, fasthttp/prefork", "≤ 1.2 × √((k−1)/64), a socket for each worker", spreadRow},
	{"main", "spawn → main with and without cgo", "–", "printed", spawnToMain},
	{"journal", "spawn → main with ops/journal linked", "the same program without", "≤ 1.03 ×", linkedRow("journal", "this library and ops/journal")},
	{"operate", "spawn → main with ops.Attach", "the same program without", "≤ 1.03 ×", linkedRow("operate", "this library and ops")},
	{"command", "prefork status of 100 workers, the whole process", "an empty Go program", "≤ 4 ×", commandRow},
	{"restart", "kill → next program, below prefork run; healthy, and just started", "a loop by hand, runsv, s6-supervise, start_server", "≤ 1.15 ×, ≤ 2 ms", restart},
	{"roll", "rolling reload of 64 workers", "a signal to all at once", "printed", roll},
}

func list(w io.Writer) {
	t := &table{head: []string{"row", "what", "beside", "goal"}, left: []bool{true, true, true, true}}
	for _, r := range rows {
		t.add(r.name, r.what, r.beside, r.goal)
	}
	t.write(w, "")
}
