def write_report(workdir, run=None):
  raise NotImplementedError
