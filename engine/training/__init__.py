"""A run, from its plan to its result: run.py tells it from top to bottom, in the order in which it happens.

    configuration   checked by command_line before torch loads; of a resumed run the one in its checkpoint (checkpoints/)
    folder          a new one, or the one of the run that goes on, locked: one process trains in it    run_folder.py
    hardware        device, precision and threads, each with its reason                                hardware.py
    parts           data, scan, model, task, after seeding; first weights are random or `init`'s       assembly.py
    plan            printed before anything is written                                                 plan.py
    start           config.yaml, overrides.txt, environment.json                                       run_folder.py, environment.py
    training        Lightning's loop, without its handling of signals                                  trainer.py, optimizer.py
      each step     seeds, finite loss and gradient, optimizer, weight average, metrics.csv, progress  callbacks/
      checkpoint    before each validation, every so many steps, at the end, when a signal asks        checkpoints/saver.py
      validation    of the averaged weights; the best value moves `best`                               checkpoints/saver.py
    test            of the best weights, with pictures
    result          the metrics, where the weights are, what to type next                              summary.py

A signal is answered at the next optimizer step (stop.py); what breaks down is said in words (failures.py).
"""
