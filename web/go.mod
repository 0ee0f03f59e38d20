module github.com/dynalock/dynalock/web

go 1.26.0

require (
	github.com/dynalock/dynalock v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace github.com/dynalock/dynalock => ../
