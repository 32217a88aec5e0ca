module github.com/prefork-go/prefork

go 1.26.0

require (
	github.com/lestrrat-go/server-starter v0.0.0-20210101230921-50cd1900b5bc
	golang.org/x/sys v0.49.0
)
