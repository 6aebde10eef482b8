"""The caller's side: engines that run jobs, one in a file, and what they share.

`base` is what an executor of ours offers to jobs, `future` what it hands out; `local` is the engine of this package:
`scheduler` decides, `pool` carries out, `lane` speaks with one worker, `spawner` starts them and `guardian` ends them
when the caller dies.
"""
