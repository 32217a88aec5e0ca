package reuseport

import "slices"

// A Move changes the adopter of a socket. To is the ordinal of the worker that
// adopts the socket, or 0 if the worker of its own slot serves it from now on.
// From is the previous adopter, or 0 if there was none; it drops the socket
// unless it has exited. To should adopt the socket before From drops it, so
// that some worker always serves it.
type Move struct {
	Index    int
	From, To int
}

// Assign decides which worker serves each socket of a group.
//
// The arguments own and adopters have an element for each socket. An element of
// own is the ordinal of the ready worker of the socket's slot, or 0 if the slot
// has none. If it has two, either will do. An element of adopters is the
// ordinal of the worker that has adopted the socket, or 0; adopters may be
// shorter than own after the group has grown. The argument ready lists the
// ordinals of all ready workers of the pool, in ascending order.
//
// Assign returns the sockets that have a worker of their own, for Steer, and
// the necessary moves. These are the rules:
//
//   - A socket with a ready worker of its own has no adopter.
//   - Any other socket has a ready adopter, if any worker is ready.
//   - A worker adopts at most its share: the number of sockets to adopt divided
//     by the number of ready workers, rounded up.
//   - Nothing moves unnecessarily. While no worker is ready, nothing moves.
//
// Assign is a pure function.
func Assign(own, ready, adopters []int) (live []int, moves []Move) {
	for i, ordinal := range own {
		if ordinal == 0 {
			continue
		}
		if live == nil {
			live = make([]int, 0, len(own)-i)
		}
		live = append(live, i)
		if from := adopter(adopters, i); from != 0 {
			moves = append(moves, Move{Index: i, From: from})
		}
	}
	if len(live) == len(own) || len(ready) == 0 {
		return live, moves
	}
	return live, append(moves, adopt(own, ready, adopters)...)
}

// adopt returns the moves for the sockets without a worker of their own.
func adopt(own, ready, adopters []int) (moves []Move) {
	var orphans []int // sockets that no adopter keeps
	counts := make([]int, len(ready))
	n := count(own, 0)
	share := (n + len(ready) - 1) / len(ready)
	for i, ordinal := range own {
		if ordinal != 0 {
			continue
		}
		if k, ok := slices.BinarySearch(ready, adopter(adopters, i)); ok && counts[k] < share {
			counts[k]++
		} else {
			orphans = append(orphans, i)
		}
	}
	// The first pass fills up to the share rounded down, so that no worker has
	// two sockets while another has none.
	for _, limit := range []int{n / len(ready), share} {
		for k, ordinal := range ready {
			for ; counts[k] < limit && len(orphans) > 0; orphans = orphans[1:] {
				moves = append(moves, Move{Index: orphans[0], From: adopter(adopters, orphans[0]), To: ordinal})
				counts[k]++
			}
		}
	}
	return moves
}

func adopter(adopters []int, i int) int {
	if i < len(adopters) {
		return adopters[i]
	}
	return 0
}

func count(s []int, v int) (n int) {
	for _, e := range s {
		if e == v {
			n++
		}
	}
	return n
}
