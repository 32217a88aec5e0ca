//go:build linux

package main

import (
	"io"
	"net/http"
	"os"
	"strconv"
)

var pid = strconv.Itoa(os.Getpid())

func netHandler(w http.ResponseWriter, r *http.Request) { io.WriteString(w, respond(r.URL.Path)) }

// node is part of a tree as templates, decoders and database clients allocate
// it: small, numerous, full of pointers, and garbage after the request.
type node struct {
	left, right *node
	value       [4]int
}

// tree returns a tree of 2ⁿ⁺¹ − 1 nodes.
func tree(n int) *node {
	t := &node{value: [4]int{n}}
	if n > 0 {
		t.left, t.right = tree(n-1), tree(n-1)
	}
	return t
}

func (t *node) sum() int {
	if t == nil {
		return 0
	}
	return 1 + t.left.sum() + t.right.sum()
}

func (t *node) text() string { return strconv.Itoa(t.sum()) + " nodes\n" }
