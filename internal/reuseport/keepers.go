package reuseport

import "slices"

// A Move says that a socket's keeper changes. To is the ordinal of the worker that is to adopt the socket, 0 when its
// own slot's worker serves it from now on. From is the one that kept it, 0 for none: it is to drop the socket, unless it
// has ended. To adopts before From drops, so that the socket is never without a worker.
type Move struct {
	Index    int
	From, To int
}

// Keepers decides who serves each socket of a group. own holds, for each socket, the ordinal of its slot's ready worker,
// 0 for none (it does not matter which, where there are two); ready the ordinals of all ready workers of the pool, in
// ascending order; keepers, for each socket, who kept it until now, 0 for none. A keepers shorter than own is one from
// before the group grew.
//
// It answers which sockets have a worker of their own, which is what Steer needs, and what is to change. The rule: a
// socket with a ready worker of its own has no keeper; any other has one that is ready, if any worker is; none keeps more
// than its share, which is the number of such sockets divided by that of ready workers, rounded up; and nothing moves that
// need not. As long as no worker is ready, keepers stay who they are.
//
// The same question has the same answer. It reads no clock and keeps nothing.
func Keepers(own, ready, keepers []int) (live []int, moves []Move) {
	var open []int // sockets that need a keeper, and have none that can stay
	count := make([]int, len(ready))
	unattended := 0
	for i, ordinal := range own {
		switch {
		case ordinal == 0:
			unattended++
		case keeper(keepers, i) != 0:
			moves = append(moves, Move{Index: i, From: keeper(keepers, i)})
			fallthrough
		default:
			if live == nil {
				live = make([]int, 0, len(own)-i)
			}
			live = append(live, i)
		}
	}
	if unattended == 0 || len(ready) == 0 {
		return live, moves
	}
	share := (unattended + len(ready) - 1) / len(ready)
	for i, ordinal := range own {
		if ordinal != 0 {
			continue
		}
		if k, ok := slices.BinarySearch(ready, keeper(keepers, i)); ok && count[k] < share {
			count[k]++
		} else {
			open = append(open, i)
		}
	}
	// First up to the share rounded down, so that none is left out while another has two.
	for _, most := range []int{unattended / len(ready), share} {
		for k, ordinal := range ready {
			for ; count[k] < most && len(open) > 0; open = open[1:] {
				moves = append(moves, Move{Index: open[0], From: keeper(keepers, open[0]), To: ordinal})
				count[k]++
			}
		}
	}
	return live, moves
}

func keeper(keepers []int, i int) int {
	if i < len(keepers) {
		return keepers[i]
	}
	return 0
}
