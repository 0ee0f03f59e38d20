module github.com/dynalock/dynalock/tests

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/dynalock/dynalock v0.0.0
	github.com/stretchr/testify v1.12.1
	modernc.org/sqlite v1.59.0
)

replace github.com/dynalock/dynalock => ../
