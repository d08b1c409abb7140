"""Kernels' schedules are read from the files that the TPU's compiler writes."""

from mmjax.plan.schedules import base_name, compiler_flags, read_schedules


def test_schedules_are_read_by_kernel_and_other_files_are_not(tmp_path):
  said = "Schedule analysis:\n\ttotal scheduled bundles:    1245\n\tempty scheduled bundles:    280\n"
  (tmp_path / "1795-attention_forward.9-00-schedule-analysis_packed-bundles-post-ra.txt").write_text(said)
  (tmp_path / "1795-attention_forward.9-01-packed-bundles-post-ra.txt").write_text("total scheduled bundles: 7")
  (tmp_path / "1795-TLP-02-vmem_report.html").write_text("")
  assert read_schedules(tmp_path) == {"attention_forward": 1245}
  assert base_name("attention_forward.12") == base_name("attention_forward")
  assert str(tmp_path) in compiler_flags(tmp_path)
