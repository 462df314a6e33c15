module devtools/pause

go 1.21
